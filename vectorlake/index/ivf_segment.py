"""Segments of an inverted file: codes of rows in blocks of 32, partition after partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError
from vectorlake.index.ivf_model import Model, transformed
from vectorlake.index.ivf_options import FLAT, INT8, PQ
from vectorlake.index.protocol import ROW_IDS, Arrays, ArraySource, Block
from vectorlake.kernels.ivf.encode import BY_BITS, BY_BYTES, BY_PRODUCT, encode_rows
from vectorlake.kernels.ivf.fastscan import BLOCK
from vectorlake.kernels.ivf.layout import lift_rows, place_rows
from vectorlake.kernels.ivf.nearest import nearest_centroids
from vectorlake.kernels.ivf.transform import FINE, WILD
from vectorlake.kernels.metric import Metric
from vectorlake.kernels.team import Team

BLOCKS: Final = "blocks"
FIRST_BLOCKS: Final = "first_blocks"
"""int64 [partitions + 1]: the number of each partition's first block, and the end."""

_WAYS: Final = {PQ: BY_PRODUCT, INT8: BY_BYTES}
_STEP: Final = 1024
_FAR: Final = np.float32(1e37)


@dataclass(frozen=True)
class Encoded:
    """Rows with codes, in no order: partitions int32 [m], codes uint8 [m, bytes], terms float32 [m, 2], ids int64 [m]."""

    partitions: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint8]
    terms: npt.NDArray[np.float32]
    row_ids: npt.NDArray[np.int64]


def encoded(model: Model, block: Block, *, threads: int) -> Encoded:
    """Assign rows to partitions and encode them."""
    rows, states, lengths = transformed(model, block.vectors, as_queries=False, threads=threads)
    partitions, _ = nearest_centroids(rows, model.centroids)
    if model.config.options["codes"] == FLAT:
        codes, terms = _as_stored(model, block.vectors, rows, states, lengths)
        return Encoded(partitions, codes, terms, block.row_ids)
    codes = np.empty((len(rows), model.shape.row_bytes), np.uint8)
    terms = np.empty((len(rows), 2), np.float32)

    def work(first: int, end: int) -> None:
        encode_rows(
            _WAYS.get(model.config.options["codes"], BY_BITS),
            model.shape.planes,
            model.codebook,
            int(model.by_dot),
            np.float32(model.weight),
            model.centroids,
            model.offset,
            rows,
            states,
            partitions,
            first,
            end,
            codes,
            terms,
        )

    Team(threads).share(work, len(rows), _STEP)
    return Encoded(partitions, codes, terms, block.row_ids)


def _as_stored(
    model: Model,
    vectors: npt.NDArray[Any],
    rows: npt.NDArray[np.float32],
    states: npt.NDArray[np.uint8],
    lengths: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The vectors' own bytes as codes; products are with the elements as stored."""
    raw = np.ascontiguousarray(vectors).view(np.uint8).reshape(len(rows), -1)
    terms = np.zeros((len(rows), 2), np.float32)
    if model.config.metric is Metric.HAMMING:
        codes = np.zeros((len(rows), model.shape.row_bytes), np.uint8)
        codes[:, : raw.shape[1]] = raw
        terms[:, 1] = 1
        return codes, terms
    fine = states == FINE
    if model.config.metric is Metric.COSINE:
        terms[:, 0] = model.weight
        terms[fine, 1] = -2 * model.weight / lengths[fine]
    elif model.by_dot:
        terms[:, 1] = -1 / model.scale
    else:
        terms[:, 0] = np.einsum("ij,ij->i", rows, rows)
        terms[:, 1] = -2 / model.scale
    terms[~fine] = (np.inf, 0)
    terms[states == WILD] = (_FAR, 0)
    return raw, terms


def arranged(model: Model, parts: Sequence[Encoded], *, threads: int) -> Arrays:
    """Put encoded rows into blocks, partition after partition, in the order in which they come."""
    nlist = len(model.centroids)
    size = model.shape.row_bytes
    partitions = np.concatenate([np.empty(0, np.int32), *(part.partitions for part in parts)])
    codes = np.concatenate([np.empty((0, size), np.uint8), *(part.codes for part in parts)])
    terms = np.concatenate([np.empty((0, 2), np.float32), *(part.terms for part in parts)])
    ids = np.concatenate([np.empty(0, np.int64), *(part.row_ids for part in parts)])
    counts = np.bincount(partitions, minlength=nlist)
    first_blocks = np.concatenate([[0], np.cumsum(-(-counts // BLOCK))]).astype(np.int64)
    order = np.argsort(partitions, kind="stable")
    within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.full(int(first_blocks[-1]) * BLOCK, -1, np.int64)
    rows[np.repeat(first_blocks[:-1] * BLOCK, counts) + within] = order
    blocks = np.empty((int(first_blocks[-1]), model.shape.block_bytes), np.uint8)

    def work(first: int, end: int) -> None:
        place_rows(int(model.shape.interleaved), rows, codes, terms, first, end, blocks)

    Team(threads).share(work, len(blocks), 64)
    row_ids = np.full(len(rows), -1, np.int64)
    row_ids[rows >= 0] = ids[rows[rows >= 0]]
    return {ROW_IDS: row_ids, BLOCKS: blocks, FIRST_BLOCKS: first_blocks}


def build(model: Model, blocks: Iterable[Block], *, threads: int, memory: int) -> Arrays:
    """Encode rows as one segment."""
    # A row as stored, transformed in two steps, and its code.
    row_bytes = 20 * model.shape.width + model.shape.row_bytes
    step = max(BLOCK, memory // (4 * row_bytes))
    parts = [
        encoded(model, Block(block.vectors[s : s + step], block.row_ids[s : s + step]), threads=threads)
        for block in blocks
        for s in range(0, len(block.row_ids), step)
    ]
    return arranged(model, parts, threads=threads)


def lifted(model: Model, segment: ArraySource, kept: npt.NDArray[np.bool_]) -> Encoded:
    """The rows of a segment that are to be kept, with their codes."""
    row_ids, blocks, first_blocks = checked(model, segment)
    blocks = np.ascontiguousarray(blocks)
    slots = np.flatnonzero(kept & (row_ids >= 0))
    codes = np.empty((len(slots), model.shape.row_bytes), np.uint8)
    terms = np.empty((len(slots), 2), np.float32)
    lift_rows(int(model.shape.interleaved), slots, blocks.ctypes.data, codes, terms)
    partitions = np.searchsorted(first_blocks, slots // BLOCK, side="right") - 1
    return Encoded(partitions.astype(np.int32), codes, terms, row_ids[slots])


def checked(
    model: Model, segment: ArraySource
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All of a segment's arrays: row ids, blocks and first blocks.

    Raises:
        CorruptDataError: some are missing or don't fit each other.
    """
    first_blocks = checked_first_blocks(model, segment)
    row_ids, blocks = segment[ROW_IDS], segment[BLOCKS]
    count = int(first_blocks[-1])
    if blocks.shape != (count, model.shape.block_bytes) or row_ids.shape != (count * BLOCK,):
        raise CorruptDataError(
            f"an ivf segment has {len(row_ids)} row ids and blocks of shape {blocks.shape}, "
            f"but its partitions need {count} blocks of {model.shape.block_bytes} bytes: rebuild the index"
        )
    return row_ids, blocks, first_blocks


def checked_first_blocks(model: Model, segment: ArraySource) -> npt.NDArray[np.int64]:
    """Where each partition of a segment begins.

    Raises:
        CorruptDataError: it is missing or does not fit the model.
    """
    if missing := [name for name in (ROW_IDS, BLOCKS, FIRST_BLOCKS) if name not in segment]:
        raise CorruptDataError(f"an ivf segment lacks {missing}: rebuild the index")
    first_blocks: npt.NDArray[np.int64] = segment[FIRST_BLOCKS]
    if (
        first_blocks.shape != (len(model.centroids) + 1,)
        or first_blocks[0] != 0
        or (np.diff(first_blocks) < 0).any()
    ):
        raise CorruptDataError(
            f"an ivf segment does not have the {len(model.centroids)} partitions of its model: rebuild the index"
        )
    return first_blocks


def cuts(segment: Arrays) -> Mapping[str, npt.NDArray[np.int64]]:
    """Blocks are read partition by partition."""
    return {BLOCKS: segment[FIRST_BLOCKS]}
