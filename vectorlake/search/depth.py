"""How deep to search for what was asked: a page of ranks, all rows within a distance, or some rows of each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.schema import Field
from vectorlake.search.found import Engine, Found
from vectorlake.table.locate import take_rows
from vectorlake.table.view import View

PAGES: Final = 1024
"""Pages of an approximate search down to this rank come from one search of this depth, so that they fit each other."""
_FIRST: Final = 256
"""How deep a search first goes that is to find all rows within a distance."""
_GROWTH: Final = 4


@dataclass(frozen=True)
class Grouping:
    """At most `size` rows for each value of a column; nulls are one value."""

    field: Field
    size: int


@dataclass(frozen=True)
class Extent:
    """Which of the nearest rows are wanted.

    Attributes:
        k: how many; None for all, which `max_distance` bounds.
        offset: how many to skip; None where no pages are wanted.
        max_distance: none farther.
        group: at most so many of each group.
    """

    k: int | None
    offset: int | None = None
    max_distance: float | None = None
    group: Grouping | None = None

    @property
    def skipped(self) -> int:
        return self.offset or 0

    @property
    def depth(self) -> int | None:
        """The last rank wanted; None for all."""
        return None if self.k is None else self.skipped + self.k


def page_depth(depth: int) -> int:
    """How deep to search for a page that ends at a rank, alike for neighbouring pages."""
    deep = PAGES
    while deep < depth:
        deep *= _GROWTH
    return deep


def ranked(engine: Engine, extent: Extent, view: View, *, approximate: bool) -> Found:
    """The ranks wanted, found by searches as deep as it takes."""
    most = max(engine.most, 1)
    wanted = extent.depth
    if wanted is not None and extent.group is None:
        deep = page_depth(wanted) if approximate and extent.offset is not None else wanted
        found = engine.nearest(min(deep, most), extent.max_distance)
        return found.window(extent.skipped, wanted)
    deep = _FIRST if wanted is None else _GROWTH * wanted
    while True:
        deep = min(deep, most)
        found = engine.nearest(deep, extent.max_distance)
        whole = bool((found.counts < deep).all()) or deep == most
        if extent.group is not None:
            kept = grouped(found, extent.group, view)
            whole = whole or (
                wanted is not None and bool(((kept.counts >= wanted) | (found.counts < deep)).all())
            )
        else:
            kept = found
        if whole:
            end = int(kept.counts.max(initial=0)) if wanted is None else wanted
            return kept.window(extent.skipped, end)
        deep *= _GROWTH


def grouped(found: Found, group: Grouping, view: View) -> Found:
    """The nearest rows of each group, in the order of ranks."""
    present = found.row_ids >= 0
    values = take_rows(view, found.row_ids[present], [group.field]).column(0)
    codes = np.full(found.row_ids.shape, -1, np.int64)
    codes[present] = _codes(values)
    row_ids = np.full_like(found.row_ids, -1)
    distances = np.full_like(found.distances, np.inf)
    counts = np.zeros(len(row_ids), np.int64)
    for query in range(len(row_ids)):
        count = int(found.counts[query])
        kept = np.flatnonzero(_occurrence(codes[query, :count]) < group.size)
        row_ids[query, : len(kept)] = found.row_ids[query, kept]
        distances[query, : len(kept)] = found.distances[query, kept]
        counts[query] = len(kept)
    return Found(row_ids, distances, counts)


def _codes(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number for each distinct value."""
    encoded = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(encoded, pa.ExtensionArray):
        encoded = encoded.storage
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks) if encoded.num_chunks else pa.array([], encoded.type)
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def _occurrence(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each value came before."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = (
        np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(codes) else codes[:0]
    )
    lengths = np.diff(np.append(starts, len(codes)))
    before = np.empty(len(codes), np.int64)
    before[order] = np.arange(len(codes)) - np.repeat(starts, lengths)
    return before
