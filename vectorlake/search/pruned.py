"""The exact search of a column with bounding balls: runs of rows nearest first, without those that are too far for sure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.kernels import ExactKnn, Metric
from vectorlake.kernels.balls import Reach, reach
from vectorlake.kernels.order import sorted_rows
from vectorlake.kernels.team import cores
from vectorlake.schema import Field
from vectorlake.search.blocks import Part, read_blocks
from vectorlake.search.found import Found
from vectorlake.search.runs import Window, has_balls, selected, windows
from vectorlake.search.selection import Selection
from vectorlake.search.vectors import Block
from vectorlake.table.scan import ordered_map
from vectorlake.table.view import View

_SAMPLE: Final = 32
"""Queries that are asked how much balls would leave of the rows."""
_GROUP: Final = 16
"""Queries, near each other, that look at runs together."""
_QUERIES: Final = 4096
"""Queries whose distances from all balls are in memory at a time."""
_FIRST_ROWS: Final = 1024
"""Rows that are looked at before anything is ruled out; then twice as many, and so on."""
_NEARLY_ALL: Final = 0.5
"""Where balls leave more than this share of the rows, they are looked at without more ado."""
_BLOCK_ROWS: Final = 4096
"""Blocks of fewer rows are put together."""


@dataclass(frozen=True)
class Pruning:
    """What balls spared a search.

    Attributes:
        fragments: of the table.
        fragments_skipped: of which no row was looked at.
        runs: of rows that have a ball.
        runs_skipped: of which no row was looked at.
        rows: that were looked at, for any query.
        share: of all pairs of a query and a row of a run, those that were looked at.
    """

    fragments: int
    fragments_skipped: int
    runs: int
    runs_skipped: int
    rows: int
    share: float


@dataclass(frozen=True)
class Ask:
    """What is looked for: the k nearest selected rows of each query by a metric.

    Attributes:
        queries: [n, d], as for `ExactKnn`.
        threads: as many as the process may run on when None.
    """

    view: View
    field: Field
    metric: Metric
    queries: npt.NDArray[Any]
    selection: Selection
    k: int
    threads: int | None

    def part(self, chosen: npt.NDArray[np.int64], threads: int | None) -> Ask:
        """The same for some of the queries."""
        queries = np.ascontiguousarray(self.queries[chosen])
        return Ask(self.view, self.field, self.metric, queries, self.selection, self.k, threads)

    def search(self, limits: npt.NDArray[np.float64]) -> ExactKnn:
        """A search that has seen no rows yet."""
        return ExactKnn(self.queries, k=self.k, metric=self.metric, threads=self.threads, bounds=limits)

    def offer(self, search: ExactKnn, parts: Iterable[Part]) -> int:
        """Offer the selected rows of some parts to a search; returns how many there were."""
        rows = 0
        for block in _merged(read_blocks(self.view, self.field, self.selection, parts, self.threads)):
            search.add(block.vectors, block.row_ids, block.valid)
            rows += len(block.row_ids)
        return rows


def nearest_pruned(
    ask: Ask, limits: npt.NDArray[np.float64], *, worth: float
) -> tuple[Found, Pruning] | None:
    """The k nearest rows within limits, as a scan finds them, without looking at runs of rows that balls rule out.

    A run is left out only if none of its rows can be as near as the k-th found (`kernels.balls` has the bound). Queries
    that are near each other look at runs together, the nearest ones first.

    Args:
        limits: float64 [n], how far a row is at most.
        worth: balls are used if they leave no more than this share of the rows, as some of the queries tell.

    Returns:
        The rows, and what was spared; None without balls, or where they would not be worth it.
    """
    if ask.metric is Metric.HAMMING or not len(ask.queries) or not has_balls(ask.view):
        return None
    count = len(ask.queries)
    best = _Best(count, ask.k)
    told = _Told(count)
    for window in windows(ask.view, ask.field):
        allowed, others = selected(ask.view, window, ask.selection)
        if not told.begun and not _worthwhile(ask, window, allowed, others, limits, worth):
            return None
        told.begin(window)
        if others:
            search = ask.search(np.minimum(limits, best.farthest))
            told.rows += ask.offer(search, others)
            told.fragments_seen += len(others)
            best.take(np.arange(count), search)
        known = np.minimum(limits, best.farthest)
        seen = np.zeros(len(allowed), np.int64)
        for chosen, search, visited in _looks(ask, window, allowed, known):
            best.take(chosen, search)
            seen += len(chosen) * visited
        told.add(window, seen)
    return best.found(), told.pruning()


class _Best:
    """The nearest rows so far, of searches among different rows."""

    def __init__(self, count: int, k: int) -> None:
        self._row_ids = np.full((count, k), -1, np.int64)
        self._distances = np.full((count, k), np.inf)

    @property
    def farthest(self) -> npt.NDArray[np.float64]:
        """float64 [n], how far the k-th is; infinity where fewer were found."""
        return self._distances[:, -1]

    def take(self, chosen: npt.NDArray[np.int64], search: ExactKnn) -> None:
        """Take in what a search found for some queries."""
        row_ids, distances, _ = search.result()
        k = row_ids.shape[1]
        distances, row_ids = sorted_rows(
            np.concatenate([self._distances[chosen], distances], axis=1),
            np.concatenate([self._row_ids[chosen], row_ids], axis=1),
        )
        self._distances[chosen], self._row_ids[chosen] = distances[:, :k], row_ids[:, :k]

    def found(self) -> Found:
        """What was found."""
        return Found(self._row_ids, self._distances, (self._row_ids >= 0).sum(axis=1))


class _Told:
    """Counts for `Pruning`."""

    def __init__(self, queries: int) -> None:
        self._queries = queries
        self._pairs = self._all_rows = 0
        self.begun = False
        self.fragments = self.fragments_seen = self.runs = self.runs_seen = self.rows = 0

    def begin(self, window: Window) -> None:
        """The fragments of a window are about to be looked at."""
        self.begun = True
        self.fragments += len(window.bounded) + len(window.unbounded)
        self.runs += len(window.starts)

    def add(self, window: Window, seen: npt.NDArray[np.int64]) -> None:
        """How many queries looked at each run of a window."""
        self.runs_seen += int((seen > 0).sum())
        self.fragments_seen += len(np.unique(window.fragment[seen > 0]))
        self.rows += int(window.lengths[seen > 0].sum())
        self._pairs += int((window.lengths * seen).sum())
        self._all_rows += int(window.lengths.sum())

    def pruning(self) -> Pruning:
        """The counts."""
        return Pruning(
            self.fragments,
            self.fragments - self.fragments_seen,
            self.runs,
            self.runs - self.runs_seen,
            self.rows,
            self._pairs / max(self._all_rows * self._queries, 1),
        )


def _worthwhile(
    ask: Ask,
    window: Window,
    allowed: npt.NDArray[np.bool_],
    others: list[Part],
    limits: npt.NDArray[np.float64],
    worth: float,
) -> bool:
    """Whether balls leave few enough rows, told by a sample of the queries after a look at the run nearest to each."""
    if window.balls is None or not allowed.any():
        return False
    if worth >= 1:
        return True
    count = len(ask.queries)
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
    some = ask.part(sample, ask.threads)
    apart = reach(some.queries, window.balls, ask.metric)
    search = some.search(limits[sample])
    nearest = np.where(allowed, apart.centre, np.inf).argmin(axis=1)
    some.offer(search, window.parts(np.unique(nearest)))
    known = np.minimum(limits[sample], search.result()[1][:, -1])
    left = (apart.least <= known[:, None]) & allowed
    unbounded = sum(high - low for _, ranges in others for low, high in ranges)
    share = (float((left * window.lengths).sum(axis=1).mean()) + unbounded) / (
        int(window.lengths[allowed].sum()) + unbounded
    )
    return share <= worth


def _looks(
    ask: Ask, window: Window, allowed: npt.NDArray[np.bool_], known: npt.NDArray[np.float64]
) -> Iterator[tuple[npt.NDArray[np.int64], ExactKnn, npt.NDArray[np.bool_]]]:
    """Groups of queries, what each found, and at which runs it looked."""
    if window.balls is None or not allowed.any():
        return
    for first in range(0, len(ask.queries), _QUERIES):
        block = np.arange(first, min(first + _QUERIES, len(ask.queries)))
        apart = reach(ask.queries[block], window.balls, ask.metric)
        size = _GROUP if window.mapped else len(block)  # what has to be read is read once
        order = np.argsort(apart.centre.argmin(axis=1), kind="stable")
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        threads = ask.threads or cores()

        each = 1 if len(groups) > 1 else ask.threads
        look = functools.partial(_look, ask, window, allowed, known, block, apart, each)
        yield from ordered_map(look, groups, threads=min(threads, len(groups)))


def _look(
    ask: Ask,
    window: Window,
    allowed: npt.NDArray[np.bool_],
    known: npt.NDArray[np.float64],
    block: npt.NDArray[np.int64],
    apart: Reach,
    threads: int | None,
    group: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], ExactKnn, npt.NDArray[np.bool_]]:
    chosen = block[group]
    part, limits = ask.part(chosen, threads), known[chosen]
    search = part.search(limits)
    mine = Reach(apart.least[group], apart.centre[group])
    return chosen, search, _visit(part, search, window, allowed, mine, limits)


def _visit(
    ask: Ask,
    search: ExactKnn,
    window: Window,
    allowed: npt.NDArray[np.bool_],
    apart: Reach,
    limits: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Offer runs to a search, the nearest first, until all that are left are too far; returns at which it looked."""
    left = allowed & (apart.least <= limits[:, None]).any(axis=0)
    seen = np.zeros_like(allowed)
    order = np.lexsort((apart.centre.min(axis=0), apart.least.min(axis=0)))
    lengths = window.lengths
    total = int(lengths[allowed].sum())
    rows = max(_FIRST_ROWS, 2 * ask.k)
    # Of each query the nearest run, so that none goes on without knowing anything.
    chosen = np.unique(np.where(left, apart.centre, np.inf).argmin(axis=1))
    chosen = chosen[left[chosen]]
    while len(chosen):
        seen[chosen], left[chosen] = True, False
        ask.offer(search, window.parts(np.sort(chosen)))
        known = np.minimum(limits, search.result()[1][:, -1])
        left &= (apart.least <= known[:, None]).any(axis=0)
        chosen = order[left[order]]
        ends = np.cumsum(lengths[chosen])
        # What is nearly all is looked at in the order in which it is stored.
        if len(chosen) and rows < ends[-1] < _NEARLY_ALL * total:
            chosen = chosen[: int(np.searchsorted(ends, rows)) + 1]
        rows *= 2
    return seen


def _merged(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same rows in fewer blocks: each costs a search some time, however short it is."""
    held: list[Block] = []
    for block in blocks:
        if len(block.row_ids) >= _BLOCK_ROWS:
            yield block
            continue
        held.append(block)
        if sum(len(one.row_ids) for one in held) >= _BLOCK_ROWS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    valid = None
    if any(one.valid is not None for one in blocks):
        valid = np.concatenate(
            [np.ones(len(one.row_ids), np.bool_) if one.valid is None else one.valid for one in blocks]
        )
    vectors = np.concatenate([one.vectors for one in blocks])
    return Block(vectors, np.concatenate([one.row_ids for one in blocks]), valid)
