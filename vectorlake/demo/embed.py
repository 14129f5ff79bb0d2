"""A text embedder that needs no download: latent semantic analysis, fitted on the corpus itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectorlake.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_WORD = re.compile(r"[a-z]{2,}")
_SUFFIXES = ("ations", "ation", "ings", "ing", "ions", "ion", "ers", "er", "ed", "es", "s", "e")


class Lsa:
    """Latent semantic analysis: TF-IDF over word stems, then a truncated singular value decomposition.

    Texts whose words occur with the same other words come out close by cosine, so a query finds texts that
    share no word with it. Deterministic for the same texts, in the same order, on the same machine.

    Source: Deerwester, Dumais, Furnas, Landauer, Harshman, "Indexing by latent semantic analysis" (1990); the
    decomposition is the randomised one of Halko, Martinsson and Tropp (2011), as scikit-learn has it.
    """

    def __init__(
        self, *, dimensions: int = 512, max_characters: int = 1000, max_features: int = 30_000
    ) -> None:
        """Make an embedder to be fitted.

        Args:
            dimensions: length of the vectors.
            max_characters: only this much of the beginning of each text is looked at.
            max_features: only this many of the most frequent words are told apart.
        """
        self.dimensions = dimensions
        self._max_characters = max_characters
        self._max_features = max_features
        self._vectorizer: Any = None
        self._projection: NDArray[np.float32] | None = None

    def fit(self, texts: Sequence[str]) -> Lsa:
        """Learn the words and the directions from `texts`, and return this embedder.

        Raises:
            InvalidInputError: there are too few texts, or words in them, for so many dimensions.
            UnsupportedError: scikit-learn is not installed.
        """
        try:
            from sklearn.decomposition import TruncatedSVD
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
            from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
        except ImportError as error:
            message = "The demo's embedder needs scikit-learn: pip install 'vectorlake[demo]'"
            raise UnsupportedError(message) from error
        vectorizer = TfidfVectorizer(
            analyzer=lambda text: [
                _stem(word) for word in _WORD.findall(text.lower()) if word not in ENGLISH_STOP_WORDS
            ],
            sublinear_tf=True,
            min_df=2,
            max_df=0.3,
            max_features=self._max_features,
            dtype=np.float32,
        )
        try:
            counts = vectorizer.fit_transform(self._cut(texts))
        except ValueError as error:
            raise InvalidInputError(f"Cannot learn words from {len(texts):,} texts: {error}") from error
        if min(counts.shape) <= self.dimensions:
            message = (
                f"{self.dimensions} dimensions need more than so many texts and words, but there are "
                f"{counts.shape[0]:,} and {counts.shape[1]:,}: give more texts or ask for fewer dimensions"
            )
            raise InvalidInputError(message)
        svd = TruncatedSVD(n_components=self.dimensions, n_iter=2, random_state=0)
        # On a busy machine BLAS threads spin while they wait for one another: ten times the work itself.
        with threadpool_limits(1, user_api="blas"):
            svd.fit(counts)
        self._vectorizer = vectorizer
        # Between the plain projection, ruled by a few frequent words, and a whitened one, ruled by noise.
        scaled = svd.components_.T / np.sqrt(svd.singular_values_)
        self._projection = np.ascontiguousarray(scaled, dtype=np.float32)
        return self

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as unit vectors, float32 `[len(texts), dimensions]`; all zeros where no word is known.

        Raises:
            InvalidInputError: the embedder was not fitted.
        """
        if self._projection is None:
            raise InvalidInputError("The embedder was not fitted: call fit(texts) first")
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        vectors = np.asarray(
            self._vectorizer.transform(self._cut(texts)) @ self._projection, dtype=np.float32
        )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)

    def _cut(self, texts: Sequence[str]) -> list[str]:
        return [text[: self._max_characters] for text in texts]


def _stem(word: str) -> str:
    # Brings "read", "reads", "reading" and "reader" together; a real stemmer would be a dependency more.
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word
