"""All rows of a table against all: the nearest other rows of each, exactly or nearly all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.kernels import Metric
from vectorlake.kernels.capability import has_avx2
from vectorlake.schema import Field, FixedListType, is_multivector
from vectorlake.search.choice import Effortful, Mode, choose_target, positive
from vectorlake.search.exact import ExactEngine
from vectorlake.search.found import Found
from vectorlake.search.selection import Selection, selected_rows
from vectorlake.search.vectors import Block, blocks_of
from vectorlake.table.scan import width_of
from vectorlake.table.view import View

RESULT: Final = pa.schema(
    [
        pa.field("row_id", pa.int64(), False),
        pa.field("rank", pa.int32(), False),
        pa.field("neighbor", pa.int64(), False),
        pa.field("distance", pa.float64(), False),
    ]
)
BATCH: Final = 1 << 17
"""Rows of a batch. Of tables too large to be held, these are asked for at a time, and each pass reads the table once."""
MOST_BYTES: Final = 2 << 30
"""A table whose vectors, as stored and as small integers, take no more is joined in one pass."""


def self_join(
    view: View,
    *,
    column: str | None = None,
    k: int = 10,
    metric: str | Metric | None = None,
    target_recall: float | None = None,
    threads: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """The k nearest other rows of every row (see `Table.knn_self`), some rows at a time, in the order of the table.

    Raises:
        InvalidInputError: k below 1, an unknown metric, a recall that is none, or a column that holds no single vectors.
    """
    recall = Effortful(target_recall=target_recall).target_recall or 1.0
    depth = min(positive("k", k), max(view.snapshot.num_rows, 1))
    target = choose_target(view.snapshot, column=column, metric=metric, index=None, mode=Mode.EXACT)
    if is_multivector(target.field.type):
        raise InvalidInputError(
            f"column {target.field.name!r} holds multivectors: a self-join is for vectors"
        )
    everything = Selection()

    def batches() -> Iterator[pa.RecordBatch]:
        if target.metric is not Metric.HAMMING and has_avx2() and _fits(view, target.field, depth, recall):
            blocks = blocks_of(selected_rows(view, everything, threads), target.field)
            yield from _in_blocks(blocks, depth, target.metric, recall, threads)
            return
        waiting: list[tuple[npt.NDArray[np.generic], npt.NDArray[np.int64]]] = []
        for block in blocks_of(selected_rows(view, everything, threads), target.field):
            usable = np.ones(len(block.vectors), np.bool_) if block.valid is None else block.valid.copy()
            if block.vectors.dtype.kind == "f":
                usable &= np.isfinite(block.vectors).all(axis=1)
            waiting.append((block.vectors[usable], block.row_ids[usable]))
            if sum(len(ids) for _, ids in waiting) >= BATCH:
                yield joined(waiting)
                waiting.clear()
        if waiting:
            yield joined(waiting)

    def joined(parts: list[tuple[npt.NDArray[np.generic], npt.NDArray[np.int64]]]) -> pa.RecordBatch:
        vectors = np.concatenate([vectors for vectors, _ in parts])
        ids = np.concatenate([ids for _, ids in parts])
        engine = ExactEngine(view, target.field, target.metric, vectors, everything, threads)
        # One more than asked for: the row itself may be among them.
        return _batch(ids, _without_self(engine.nearest(depth + 1, None), ids, depth))

    return batches()


def _fits(view: View, field: Field, k: int, recall: float) -> bool:
    """Whether all rows may be held at once."""
    from vectorlake.kernels.self_knn import bytes_per_row

    assert isinstance(field.type, FixedListType)
    stored = width_of(field.to_storage().type)
    return view.snapshot.num_rows * (stored + bytes_per_row(field.type.size, k, recall)) <= MOST_BYTES


def _in_blocks(
    blocks: Iterable[Block], k: int, metric: Metric, recall: float, threads: int | None
) -> Iterator[pa.RecordBatch]:
    """Each pair of rows is looked at once, for both of them."""
    from vectorlake.kernels.self_knn import nearest_others

    parts = [
        (block.vectors, block.row_ids)
        if block.valid is None
        else (block.vectors[block.valid], block.row_ids[block.valid])
        for block in blocks
    ]
    nearest = nearest_others(parts, k=k, metric=metric, recall=recall, threads=threads)
    for first in range(0, len(nearest.own), BATCH):
        part = slice(first, first + BATCH)
        found = Found(nearest.row_ids[part], nearest.distances[part], nearest.counts[part])
        yield _batch(nearest.own[part], found)


def _without_self(found: Found, ids: npt.NDArray[np.int64], k: int) -> Found:
    """The k nearest besides the row itself, of k + 1."""
    own = found.row_ids == ids[:, None]
    # A row that is not among its own nearest, as under dot, gives up the farthest instead.
    own[~own.any(axis=1), -1] = True
    others = ~own
    row_ids = found.row_ids[others].reshape(len(ids), k)
    distances = found.distances[others].reshape(len(ids), k)
    return Found(row_ids, distances, (row_ids >= 0).sum(axis=1))


def _batch(ids: npt.NDArray[np.int64], found: Found) -> pa.RecordBatch:
    there = found.row_ids >= 0
    ranks = np.broadcast_to(np.arange(found.row_ids.shape[1], dtype=np.int32), there.shape)[there]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.repeat(ids, found.counts)),
            pa.array(ranks),
            pa.array(found.row_ids[there]),
            pa.array(found.distances[there]),
        ],
        schema=RESULT,
    )
