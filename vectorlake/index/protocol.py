"""What an index kind is: train → build → open → search, and merge, over arrays; tables, files and commits are elsewhere.

A kind makes *models* (what is learnt once: centroids, rotations, codebooks) and *segments* (codes of some rows under a
model), both plain named arrays. Rows live in *slots*, the positions in which a segment stores them; a slot may be empty
(padding). Searches nominate slots by estimated distance; the caller measures them from the stored values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.kernels.metric import Metric

Arrays: TypeAlias = Mapping[str, np.ndarray]

ROW_IDS: Final = "row_ids"
"""The array that every segment has: int64 [slots], the row id in each slot, -1 where it is empty."""
NO_SLOT: Final = -1
DEFAULT_MEMORY: Final = 1 << 30


class ArraySource(Protocol):
    """Arrays of one file, loaded when they are asked for: mapped if the file is local, else fetched and kept."""

    @property
    def local(self) -> bool:
        """Whether arrays are mapped, so that touching a part reads only that part."""
        ...

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole array, read-only."""
        ...

    def parts(self, name: str, wanted: Sequence[int]) -> list[np.ndarray]:
        """Some parts of an array that was written with cuts (`arrays.Cuts`): in few round trips, each checked, and cached
        within bounds."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes fetched from a remote store so far (0 for mapped files)."""
        ...


@dataclass(frozen=True)
class Facts:
    """What automatic options are chosen from."""

    rows: int
    """Rows with a vector."""
    dimension: int
    """Elements of a vector; for hamming on binary vectors bytes, as stored."""
    element: str
    metric: Metric


@dataclass(frozen=True)
class Resolved:
    """Options, all settled, and for those that were not given why they are so."""

    options: Mapping[str, Any]
    chosen: Mapping[str, str]


@dataclass(frozen=True)
class Config:
    """How an index is made: fixed for all its segments."""

    kind: str
    metric: Metric
    dimension: int
    element: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Vectors [m, d] as stored, none null, with their row ids, int64 [m].

    The vectors of a multivector come one after another, each with the id of its row.
    """

    vectors: npt.NDArray[Any]
    row_ids: npt.NDArray[np.int64]


class Vectors(Protocol):
    """The rows to index; may be read more than once."""

    @property
    def rows(self) -> int:
        """An upper bound of how many there are."""
        ...

    def sample(self, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        """At most `count` distinct rows, as stored, in no particular order."""
        ...

    def blocks(self) -> Iterator[Block]:
        """All of them, some thousands at a time."""
        ...


@dataclass(frozen=True)
class Ask:
    """One batch of queries to a segment.

    Attributes:
        queries: [n, d] float32, finite, as given (kinds normalise for cosine themselves); uint8 for hamming.
        pool: how many slots to nominate for each query.
        effort: how much to look at: partitions probed (IVF), mean visits (graph); kinds that look at all ignore it.
        allowed: uint32 [ceil(slots / 32)]; bit i of word w is slot 32 w + i: whether it may be nominated; None for all.
        selectivity: share of the slots that `allowed` lets pass, 1.0 without: a kind may look at more when it is small.
        threads: how many may work.
        omitted: int64 [n], for each query a slot that is neither nominated nor leads to others, as if its row were not
            there; a kind in which no row leads to another may ignore it. None for none.
        turn: a counter, int64 [1], for kinds that `take_turns`: threads that ask with one counter share out the queries,
            and each is answered for those that it took, by itself. None where all are this thread's.
        offsets: int64 [n + 1], for multivectors where each query's tokens begin in `queries` [tokens, d]; else None.
    """

    queries: npt.NDArray[Any]
    pool: int
    effort: int
    allowed: npt.NDArray[np.uint32] | None = None
    selectivity: float = 1.0
    threads: int = 1
    omitted: npt.NDArray[np.int64] | None = None
    turn: npt.NDArray[np.int64] | None = None
    offsets: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Nominated:
    """What a segment answers.

    Attributes:
        slots: int64 [n, pool], `NO_SLOT` where fewer were found; in no particular order.
        estimates: float32 [n, pool], estimated distance under the metric (l2 squared), infinity where there is none.
        probed: partitions looked at, summed over the queries (graph: hops).
        scored: slots whose code was compared, summed over the queries.
        taken: int64 [m], where threads take turns: the queries that this is the answer for; None for all.
    """

    slots: npt.NDArray[np.int64]
    estimates: npt.NDArray[np.float32]
    probed: int
    scored: int
    taken: npt.NDArray[np.int64] | None = None


Single: TypeAlias = Callable[[npt.NDArray[Any]], Nominated]


class Searcher(Protocol):
    """An open segment. Safe to share between threads."""

    @property
    def row_ids(self) -> npt.NDArray[np.int64]:
        """int64 [slots], -1 where a slot is empty."""
        ...

    @property
    def largest_effort(self) -> int:
        """The effort at which every row is looked at, or beyond which more changes nothing."""
        ...

    def search(self, ask: Ask) -> Nominated:
        """Nominate slots for each query. Empty slots and slots not allowed never appear, and none appears twice."""
        ...


class IndexKind(Protocol):
    """One kind of index. Stateless: everything it needs is passed in."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Of its arrays' layout; it opens all versions up to this one."""
        ...

    @property
    def exhaustive(self) -> bool:
        """Whether `largest_effort` looks at every row, so that with a pool as large as the segment nothing is missed."""
        ...

    @property
    def metrics(self) -> frozenset[Metric]: ...

    @property
    def elements(self) -> frozenset[str]: ...

    def resolve(self, facts: Facts, options: Mapping[str, Any]) -> Resolved:
        """Settle all options. Pure.

        Raises:
            InvalidInputError: an unknown option (with close names), or a value that can't be (more partitions than rows…).
        """
        ...

    def train(
        self, vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int
    ) -> Arrays:
        """Learn a model. `memory` bounds what it takes, in bytes.

        Raises:
            InvalidInputError: nothing can be learnt from these vectors (none at all, …).
        """
        ...

    def build(
        self,
        model: Arrays | ArraySource,
        blocks: Iterable[Block],
        config: Config,
        *,
        threads: int,
        memory: int,
    ) -> Arrays:
        """Encode rows as one segment. `memory` bounds what it takes besides the result."""
        ...

    def cuts(self, segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
        """Where to cut arrays for reads by range: array name → first row of each part, and the end (int64 [parts + 1])."""
        ...

    def merge(
        self,
        model: Arrays | ArraySource,
        segments: Sequence[tuple[ArraySource, npt.NDArray[np.bool_]]],
        config: Config,
    ) -> Arrays:
        """One segment of several of one model, with only those slots that are marked (bool [slots])."""
        ...

    def open(self, model: ArraySource, segment: ArraySource, config: Config) -> Searcher:
        """Open a segment for searching.

        Raises:
            CorruptDataError: arrays are missing or don't fit each other.
        """
        ...

    def efforts(self, config: Config, rows: int) -> Sequence[tuple[int, int]]:
        """(effort, pool for k = 10) in ascending cost: the ladder on which recall is measured."""
        ...


def takes_several(kind: IndexKind) -> bool:
    """Whether a kind indexes columns whose rows have several vectors, and only those; it says so by `several = True`."""
    return bool(getattr(kind, "several", False))


def divides(searcher: Searcher) -> bool:
    """Whether parts of a batch take a searcher no longer than the whole, so that each thread takes some from nominating to
    measuring; it says so by `divides = True`."""
    return bool(getattr(searcher, "divides", False))


def takes_turns(searcher: Searcher, ask: Ask) -> bool:
    """Whether threads may share out the queries of such an ask, one by one; a searcher says so by `takes_turns(ask)`."""
    said: Callable[[Ask], bool] | None = getattr(searcher, "takes_turns", None)
    return said is not None and said(ask)


def for_singles(searcher: Searcher, ask: Ask) -> Single:
    """A function that answers an ask for one query [1, d] after another, in place of its own. A searcher that settles all
    else beforehand has such a method."""
    settled: Callable[[Ask], Single] | None = getattr(searcher, "for_singles", None)
    if settled is not None:
        return settled(ask)
    terms = ask.pool, ask.effort, ask.allowed, ask.selectivity
    return lambda query: searcher.search(Ask(query, *terms))


def compared(searcher: Searcher, config: Config) -> int:
    """For how many elements of a vector comparing a code costs; fewer than there are where it says so by `compared`."""
    return int(getattr(searcher, "compared", config.dimension))
