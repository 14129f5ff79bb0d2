"""The model of an inverted file: how vectors are transformed, centroids, and codebooks. Trained once, shared by segments."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, InvalidInputError
from vectorlake.index.ivf_options import FLAT, PQ, Shape, shape_of
from vectorlake.index.protocol import Arrays, ArraySource, Config, Vectors
from vectorlake.kernels.head import mixed, principal_directions
from vectorlake.kernels.ivf.kmeans import k_means
from vectorlake.kernels.ivf.multiply import PANEL, multiply, panels_of
from vectorlake.kernels.ivf.nearest import nearest_centroids
from vectorlake.kernels.ivf.rotation import MULTIPLE, random_rotation
from vectorlake.kernels.ivf.transform import BITS, FINE, KEEP_LENGTH, ONE_LENGTH, transform_rows
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.rows import Rows
from vectorlake.kernels.team import Team

CENTROIDS: Final = "centroids"
_MEAN: Final = "mean"
_SCALE: Final = "scale"
_OFFSET: Final = "offset"
_ORDER: Final = "rotation.order"
_FACTORS: Final = "rotation.factors"
_ACROSS: Final = "rotation.across"
_DIRECTIONS: Final = "directions"
_COVERED: Final = "covered"
"""These two are there only where vectors are turned to principal directions."""
_CODEBOOK: Final = "codebook"
_SPREADS: Final = "spreads"
"""Files of earlier builds don't have it."""
NAMES: Final = (_MEAN, _SCALE, _OFFSET, _ORDER, _FACTORS, _ACROSS, CENTROIDS, _CODEBOOK)

_STEP: Final = 2048
_ROWS_PER_DIRECTION: Final = 4
"""So many at least in a sample: fewer seem to differ along fewer directions than they do."""
_MOST_COVERED: Final = 0.75
"""Of a vector's width: to cover more takes about as long as all."""
_CODEBOOK_SAMPLE: Final = 8192
_CODEBOOK_ITERATIONS: Final = 12


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        config: of the index.
        shape: sizes that follow from it.
        mean: float64 [d], subtracted from vectors as stored.
        scale: what they are then divided by.
        offset: float32 [width], the mean, transformed: what inner products must be told of it. Zero but under dot.
        order, factors, across: the rotation (see `kernels.ivf.rotation`).
        directions: float32 [width, width], rows to which vectors are turned instead, those first that vectors differ along
            most; empty where they are rotated at random.
        centroids: float32 [partitions, width].
        codebook: float32 [m, 16, width / m], of product quantisation, else empty.
        spreads: float32 [partitions], mean squared distance of a partition's rows from its centroid; zeros where it is not
            known.
    """

    config: Config
    shape: Shape
    mean: npt.NDArray[np.float64]
    scale: float
    offset: npt.NDArray[np.float32]
    order: npt.NDArray[np.int32]
    factors: npt.NDArray[np.float32]
    across: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    codebook: npt.NDArray[np.float32]
    spreads: npt.NDArray[np.float32]

    def arrays(self) -> Arrays:
        """The model as arrays."""
        arrays = {
            _MEAN: self.mean,
            _SCALE: np.array([self.scale]),
            _OFFSET: self.offset,
            _ORDER: self.order,
            _FACTORS: self.factors,
            _ACROSS: self.across,
            # They were learnt such that this loses nothing, where they can be.
            CENTROIDS: half if (half := _halved(self.centroids)) is not None else self.centroids,
            _CODEBOOK: self.codebook,
            _SPREADS: self.spreads,
        }
        if len(self.directions):
            # They were rounded to this when they were found.
            arrays[_DIRECTIONS] = self.directions.astype(np.float16)
            arrays[_COVERED] = np.array([self.shape.covered])
        return arrays

    @functools.cached_property
    def turning(self) -> npt.NDArray[np.float32]:
        """The directions as `kernels.ivf.multiply` takes them."""
        return panels_of(self.directions)

    @property
    def by_dot(self) -> bool:
        return self.config.metric is Metric.DOT

    @property
    def weight(self) -> float:
        """What squared distances are multiplied by to give estimates."""
        return 0.5 if self.config.metric is Metric.COSINE else 1.0


def model_of(arrays: Arrays | ArraySource, config: Config) -> Model:
    """The model in arrays.

    Raises:
        CorruptDataError: they don't fit each other or the configuration.
    """
    if missing := [name for name in NAMES if name not in arrays]:
        raise CorruptDataError(f"the model of an ivf index lacks {missing}: rebuild the index")
    mean, scale, offset, order, factors, across, centroids, codebook = (
        np.array(arrays[name]) for name in NAMES
    )
    centroids = centroids.astype(np.float32)
    spreads = np.array(arrays[_SPREADS]) if _SPREADS in arrays else np.zeros(len(centroids), np.float32)
    directions = np.empty((0, 0), np.float32)
    covered = None
    if _DIRECTIONS in arrays and _COVERED in arrays:
        directions = np.asarray(arrays[_DIRECTIONS], np.float32)
        covered = int(arrays[_COVERED][0])
    shape = shape_of(config, covered)
    width = shape.width
    if (
        mean.shape != (config.dimension,)
        or offset.shape != (width,)
        or order.shape != factors.shape
        or (len(order) and (order.shape[1] != width or width % max(across.shape[1], 1)))
        or centroids.shape[1:] != (width,)
        or not len(centroids)
        or spreads.shape != (len(centroids),)
        or (len(directions) and (directions.shape != (width, width) or not 0 < shape.covered <= width))
    ):
        raise CorruptDataError(
            f"the arrays of an ivf model don't fit vectors of dimension {config.dimension}: rebuild the index"
        )
    return Model(
        config,
        shape,
        mean,
        float(scale[0]),
        offset,
        order,
        factors,
        across,
        directions,
        centroids,
        codebook,
        spreads,
    )


def transformed(
    model: Model, vectors: npt.NDArray[Any], *, as_queries: bool, threads: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Vectors as the model works with them.

    Args:
        model: the model.
        vectors: [m, d], as stored.
        as_queries: under dot, queries are given the length of a typical row: order does not depend on it.
        threads: how many may work.

    Returns:
        float32 [m, width]; states uint8 [m] (see `kernels.ivf.transform`); norms as stored, float64 [m].
    """
    rows = Rows.of(vectors, what="vectors", dimension=model.config.dimension)
    targets = np.empty((rows.count, model.shape.width), np.float32)
    states = np.empty(rows.count, np.uint8)
    lengths = np.empty(rows.count)
    mode, unit = KEEP_LENGTH, 1.0
    if model.config.metric is Metric.HAMMING:
        mode = BITS
    elif model.config.metric is Metric.COSINE:
        mode = ONE_LENGTH
    elif model.by_dot and as_queries:
        mode, unit = ONE_LENGTH, model.scale

    def work(first: int, end: int) -> None:
        transform_rows(
            mode,
            rows.code,
            rows.address,
            rows.stride,
            first,
            end,
            unit,
            model.mean,
            1.0 / model.scale,
            model.order,
            model.factors,
            model.across,
            targets,
            states,
            lengths,
        )

    Team(threads).share(work, rows.count, _STEP)
    return _turned(model, targets, threads), states, lengths


def _turned(model: Model, rows: npt.NDArray[np.float32], threads: int) -> npt.NDArray[np.float32]:
    """Rows in the model's directions."""
    if not len(model.directions):
        return rows
    turned = np.empty((len(rows), len(model.turning) * PANEL), np.float32)
    Team(threads).share(
        lambda first, end: multiply(rows[first:end], model.turning, turned[first:end]), len(rows), _STEP
    )
    return np.ascontiguousarray(turned[:, : model.shape.width])


def train(vectors: Vectors, config: Config, *, rng: np.random.Generator, threads: int, memory: int) -> Model:
    """Learn a model from a sample of the vectors.

    Raises:
        InvalidInputError: there are none.
    """
    shape = shape_of(config)
    # The sample as stored, transformed, and what k-means takes.
    fits = max(1, memory // (3 * (4 * shape.width + config.dimension * np.dtype(config.element).itemsize)))
    sample = vectors.sample(min(int(config.options["sample"]), fits), rng)
    if not len(sample):
        raise InvalidInputError("an ivf index can't be trained: the column has no vectors")
    options = config.options
    model = _untrained(sample, config, rng, threads)
    rows, states, _ = transformed(model, sample, as_queries=False, threads=threads)
    del sample
    usable = rows if (states == FINE).all() else rows[states == FINE]
    if not len(usable):
        usable = np.zeros((1, shape.width), np.float32)
    learnt = k_means(usable, int(options["nlist"]), iterations=int(options["iterations"]), rng=rng)
    centroids = _neighbours_together(_rounded(learnt))
    codebook = np.empty((0, 16, 1), np.float32)
    if options["codes"] == PQ:
        codebook = _train_codebook(usable, centroids, int(options["pq_m"]), rng)
    return dataclasses.replace(
        model, centroids=centroids, codebook=codebook, spreads=_spreads_of(usable, centroids)
    )


def _principal(model: Model, sample: npt.NDArray[Any], threads: int) -> tuple[npt.NDArray[np.float32], int]:
    """The directions to turn vectors to, and how many of them codes should cover to hold the energy asked for.

    Those covered are mixed, so that all bits tell about as much. There are none where nearly all would have to be covered,
    or the sample is too small to tell.
    """
    width = model.shape.width
    none = np.empty((0, 0), np.float32), width
    rows, states, _ = transformed(model, sample, as_queries=False, threads=threads)
    rows = rows[states == FINE]
    directions = principal_directions(rows) if len(rows) >= _ROWS_PER_DIRECTION * width else None
    if directions is None:
        return none
    energies = np.square(rows @ directions.T, dtype=np.float32).sum(axis=0, dtype=np.float64)
    reached = np.cumsum(energies) >= model.config.options["energy"] * energies.sum()
    covered = -(-(int(reached.argmax()) + 1) // MULTIPLE) * MULTIPLE
    if covered > _MOST_COVERED * width:
        return none
    turned = np.concatenate([mixed(directions[:covered]), directions[covered:]])
    return turned.astype(np.float16).astype(np.float32), covered


def _spreads_of(rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far from its centroid a partition's rows are, squared, in the mean; where there are none, as those of all are."""
    places, distances = nearest_centroids(rows, centroids)
    counts = np.bincount(places, minlength=len(centroids))
    sums = np.bincount(places, distances, minlength=len(centroids))
    usual = float(distances.mean(dtype=np.float64))
    return np.where(counts > 0, sums / np.maximum(counts, 1), usual).astype(np.float32)


def _rounded(centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Centroids in half precision, which is fine enough for them; as they are where it is too narrow."""
    with np.errstate(over="ignore"):
        half = centroids.astype(np.float16)
    return half.astype(np.float32) if np.isfinite(half).all() else centroids


def _halved(centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float16] | None:
    """Centroids in half the bytes, if they lose nothing by it."""
    with np.errstate(over="ignore"):
        half = centroids.astype(np.float16)
    return half if np.array_equal(half, centroids) else None


def _neighbours_together(centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same centroids as a chain, each followed by the nearest of those that are left.

    Partitions lie in the file in this order. Those that a search probes then often lie side by side, and are read from an
    object store in fewer and shorter ranges.
    """
    squares = np.einsum("ij,ij->i", centroids, centroids)
    order = np.empty(len(centroids), np.int64)
    left = np.ones(len(centroids), np.bool_)
    at = 0
    for place in range(len(centroids)):
        order[place] = at
        left[at] = False
        apart = squares - 2 * np.einsum("ij,j->i", centroids, centroids[at])
        at = int(np.argmin(np.where(left, apart, np.inf)))
    return np.ascontiguousarray(centroids[order])


def _untrained(sample: npt.NDArray[Any], config: Config, rng: np.random.Generator, threads: int) -> Model:
    """A model that transforms, with no centroids yet."""
    shape = shape_of(config)
    mean, scale = np.zeros(config.dimension), 1.0
    if config.metric is not Metric.HAMMING:
        mean, scale = _moments(sample, config)
    none = np.empty((0, shape.width), np.float32)
    model = Model(
        config=config,
        shape=shape,
        mean=mean,
        scale=scale,
        offset=np.zeros(shape.width, np.float32),
        order=np.empty((0, shape.width), np.int32),
        factors=none,
        across=np.empty((0, 1, 1), np.float32),
        directions=np.empty((0, 0), np.float32),
        centroids=none,
        codebook=none,
        spreads=np.empty(0, np.float32),
    )
    if config.options.get("energy", 1.0) < 1.0:
        directions, covered = _principal(model, sample, threads)
        model = dataclasses.replace(model, shape=shape_of(config, covered), directions=directions)
    if shape.rotates and not len(model.directions):
        order, factors, across = random_rotation(shape.width, rng)
        model = dataclasses.replace(model, order=order, factors=factors, across=across)
    if model.by_dot:
        still = dataclasses.replace(model, mean=np.zeros_like(mean))
        offset = transformed(still, mean[None, :], as_queries=False, threads=1)[0][0]
        model = dataclasses.replace(model, offset=offset)
    return model


def _moments(sample: npt.NDArray[Any], config: Config) -> tuple[npt.NDArray[np.float64], float]:
    """The mean of vectors, and a typical length: under dot their own, else from the mean (cosine: 1)."""
    centred = config.options["codes"] != FLAT
    total = np.zeros(config.dimension)
    squares, count = 0.0, 0
    for first in range(0, len(sample), _STEP):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            part = sample[first : first + _STEP].astype(np.float64)
            lengths = np.sqrt(np.square(part).sum(axis=1))
            usable = (lengths > 0) & (lengths < np.inf)
            part, lengths = part[usable], lengths[usable]
            if config.metric is Metric.COSINE:
                part /= lengths[:, None]
        total += part.sum(axis=0)
        squares += float(np.square(part).sum())
        count += len(part)
    mean = total / count if count and centred else np.zeros(config.dimension)
    if config.metric is Metric.COSINE:
        return mean, 1.0
    spread = squares / max(count, 1)
    if config.metric is Metric.L2:
        spread -= float(np.square(mean).sum())
    scale = float(np.sqrt(max(spread, 0.0)))
    return (mean, scale) if 1e-150 < scale < np.inf else (np.where(np.isfinite(mean), mean, 0), 1.0)


def _train_codebook(
    rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], parts: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    picked = rows[np.sort(rng.choice(len(rows), min(len(rows), _CODEBOOK_SAMPLE), replace=False))]
    places, _ = nearest_centroids(picked, centroids)
    residuals = picked - centroids[places]
    width = -(-rows.shape[1] // parts)
    padded = np.zeros((len(residuals), parts * width), np.float32)
    padded[:, : rows.shape[1]] = residuals
    return np.stack(
        [
            k_means(
                np.ascontiguousarray(padded[:, m * width : (m + 1) * width]),
                16,
                iterations=_CODEBOOK_ITERATIONS,
                rng=rng,
            )
            for m in range(parts)
        ]
    )
