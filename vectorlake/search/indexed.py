"""The search by index: segments nominate, the nominated are measured exactly, uncovered rows are scanned, all is merged."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import CorruptDataError, DamagedIndexWarning
from vectorlake.index.parts import parts_of
from vectorlake.index.protocol import Ask, Nominated, divides, takes_turns
from vectorlake.index.slots import allowed_slots
from vectorlake.kernels import Metric
from vectorlake.kernels.counter import counter
from vectorlake.kernels.heap import NO_ROW
from vectorlake.kernels.rows import Rows as Matrix
from vectorlake.kernels.team import Team, cores
from vectorlake.search.exact import nearest_among
from vectorlake.search.found import Found
from vectorlake.search.heaps import Heaps
from vectorlake.search.lean import Lean
from vectorlake.search.plan import (
    Choice,
    Effort,
    Facts,
    Strategy,
    Wish,
    choose_strategy,
    settle_effort,
    under_selection,
)
from vectorlake.search.ready import Chosen, Ready, ReadySegment, choose, ready
from vectorlake.search.refine import refine_mapped, refine_read
from vectorlake.search.selection import Selection, selected_rows
from vectorlake.search.vectors import Rows, blocks_of, element_code
from vectorlake.table.scan import width_of

BATCH: Final = 16_384
"""Queries that segments are asked at a time: more bounds no cost, and takes memory."""
_FARTHER: Final = 4
"""So many times as much is looked at where too few rows were found."""
_FEW: Final = 4
"""So many queries are searched by one thread, where nobody says."""


_PROBE: Final = Choice(Strategy.PROBE, {})


@dataclass
class Trace:
    """What one search did: counts, and nanoseconds by stage."""

    probed: int = 0
    scored: int = 0
    candidates: int = 0
    scanned: int = 0
    read: int = 0
    bytes_read: int = 0
    stages: dict[str, int] = field(default_factory=dict)

    def took(self, stage: str, since: int) -> int:
        """Add the time since then to a stage; returns now."""
        now = time.perf_counter_ns()
        self.stages[stage] = self.stages.get(stage, 0) + now - since
        return now

    def merge(self, parts: Sequence[Trace], since: int) -> None:
        """Add what threads did side by side: their stages share the time since then as they share that of all threads."""
        passed = time.perf_counter_ns() - since
        whole = max(1, sum(sum(part.stages.values()) for part in parts))
        for part in parts:
            self.probed += part.probed
            self.scored += part.scored
            self.candidates += part.candidates
            for stage, took in part.stages.items():
                self.stages[stage] = self.stages.get(stage, 0) + passed * took // whole


class IndexEngine:
    """Searches one index in one snapshot.

    A segment that turns out to be damaged is named in a warning, and its rows are scanned.
    """

    def __init__(
        self,
        prepared: Ready,
        queries: npt.NDArray[Any],
        selection: Selection,
        wish: Wish,
        *,
        threads: int | None = None,
    ) -> None:
        self.prepared = prepared
        self.queries = queries
        bits = prepared.index.metric == Metric.HAMMING
        self._asked = queries if bits else np.ascontiguousarray(queries, np.float32)
        self._matrix = Matrix.of(np.ascontiguousarray(queries), what="queries")
        self._selection = selection
        self._wish = wish
        self._threads = threads
        self._chosen: Chosen | None = None
        self.trace = Trace()
        self.choice: Choice | None = None
        self.effort: Effort | None = None

    @property
    def metric(self) -> Metric:
        return Metric(self.prepared.index.metric)

    @property
    def most(self) -> int:
        """The table's rows."""
        return self.prepared.view.snapshot.num_rows

    @property
    def survivors(self) -> int | None:
        """How many rows the selection leaves; None where it selects all, or is not evaluated yet."""
        return None if self._chosen is None else self._chosen.survivors

    def nearest(self, k: int, max_distance: float | None) -> Found:
        """The k nearest rows of each query among those that are looked at, with exact distances."""
        while True:
            try:
                return self._nearest(k, max_distance)
            except SegmentFault as fault:
                warn(str(fault))
                damaged = self.prepared.coverage.damaged | {fault.segment}
                self.prepared = ready(self.prepared.view, self.prepared.index, without=damaged)
                self._chosen = None

    @property
    def count(self) -> int:
        """How many queries there are."""
        return len(self.queries)

    def _nearest(self, k: int, max_distance: float | None) -> Found:
        prepared, count = self.prepared, self.count
        if prepared.lean is not None and count == 1 and self._selection.all:
            found = self._alone(prepared.lean, k, max_distance)
            if found is not None:
                return found
        threads = self._threads or (1 if count <= _FEW else cores())
        now = time.perf_counter_ns()
        if not self._selection.all and self._chosen is None:
            rows = selected_rows(prepared.view, self._selection, self._threads)
            self._chosen = choose(prepared, tuple(rows))
            now = self.trace.took("filter", now)
        heaps = Heaps.empty(count, k, max_distance)
        if prepared.segments:
            effort, choice = self.settle(k)
            if choice.strategy is Strategy.SCAN_SELECTED:
                assert self._chosen is not None
                self._scan_selected(self._chosen, k, heaps)
                self.trace.took("scan the selected rows", now)
                return heaps.found()
            for first in range(0, count, BATCH):
                self._probe(first, min(first + BATCH, count), effort, heaps, threads)
            if max_distance is None:
                self._probe_farther(effort, k, heaps, threads)
            now = time.perf_counter_ns()
        if self._chosen is not None:
            if self._chosen.uncovered:
                self._scan(self._chosen.uncovered, k, heaps)
        elif prepared.coverage.uncovered_rows:
            self._scan(None, k, heaps)
        now = self.trace.took("scan uncovered rows", now)
        found = heaps.found()
        self.trace.took("sort", now)
        return found

    def _alone(self, lean: Lean, k: int, max_distance: float | None) -> Found | None:
        """The nearest rows of a single query; None where fewer than k were found, or a segment is damaged."""
        effort, _ = self.settle(k)
        now = time.perf_counter_ns()
        try:
            nominated = lean.nominator(effort)(self._asked)
        except CorruptDataError:
            return None
        now = self.trace.took("probe", now)
        heaps = Heaps.empty(1, k, max_distance)
        lean.measure(self._matrix, nominated.slots, heaps)
        if max_distance is None and len(heaps.lacking()):
            return None
        found = heaps.found()
        self.trace.took("refine", now)
        self.trace.probed += nominated.probed
        self.trace.scored += nominated.scored
        self.trace.candidates += int(np.count_nonzero(nominated.slots >= 0))
        return found

    def settle(self, k: int) -> tuple[Effort, Choice]:
        """How much to look at for a depth of k, and in which way."""
        prepared, chosen = self.prepared, self._chosen
        effort = settle(prepared, self._wish, k)
        if chosen is None:
            self.effort, self.choice = effort, _PROBE
            return effort, _PROBE
        graph = prepared.index.kind == "graph"
        if not graph:
            effort = under_selection(effort, self._wish)
        facts = Facts(
            queries=self.count,
            dimension=prepared.index.dimension,
            row_bytes=width_of(prepared.field.to_storage().type),
            slots=prepared.live,
            segments=len(prepared.segments),
            survivors=sum(chosen.counts),
            effort=effort,
            largest=largest_effort(prepared),
            graph=graph,
            forced=self._wish.effort is not None,
        )
        self.effort, self.choice = effort, choose_strategy(facts)
        return self.effort, self.choice

    def _probe(self, first: int, end: int, effort: Effort, heaps: Heaps, threads: int) -> None:
        """Nominate and measure for queries [first, end)."""
        segments = self.prepared.segments
        threads = min(threads, end - first)
        if threads > 1 and len(segments) == 1 and segments[0].vectors is not None:
            ask = self._of_segment(segments[0], self._ask(first, end, effort, threads), 0)
            if takes_turns(segments[0].searcher, ask):
                self._probe_in_turns(first, end, ask, heaps, threads)
                return
        parts = parts_of(end - first, threads)
        together = threads < 2 or len(parts) < 2
        if together or not all(divides(s.searcher) and s.vectors is not None for s in segments):
            self._probe_part(first, end, effort, heaps, threads, self.trace)
            return
        now = time.perf_counter_ns()
        traces: list[Trace] = []

        def probe(low: int, high: int) -> None:
            trace = Trace()
            traces.append(trace)
            self._probe_part(first + low, first + high, effort, heaps, 1, trace)

        Team(threads).run(probe, parts)
        self.trace.merge(traces, now)

    def _probe_in_turns(self, first: int, end: int, ask: Ask, heaps: Heaps, threads: int) -> None:
        """Nominate for queries [first, end) in the only segment; each thread measures for those that it took."""
        (segment,) = self.prepared.segments
        assert segment.vectors is not None
        vectors, ask = segment.vectors, replace(ask, turn=counter())
        matrix, part = self._queries_of(first, end), heaps.of(first, end)
        code = element_code(self.prepared.field)
        began = time.perf_counter_ns()
        answers: list[tuple[Nominated, Trace]] = []

        def probe() -> None:
            trace = Trace()
            now = time.perf_counter_ns()
            nominated = self._nominate(segment, ask)
            answers.append((nominated, trace))
            now = trace.took("probe", now)
            slots, which = nominated.slots, nominated.taken
            refine_mapped(
                matrix, self.metric, code, slots, vectors.places, segment.row_ids, part, threads=1, which=which
            )  # fmt: skip
            trace.took("refine", now)

        Team(threads).together(probe)
        # Not in the threads: they would wait for each other's Python.
        for nominated, trace in answers:
            trace.probed += nominated.probed
            trace.scored += nominated.scored
            trace.candidates += int(np.count_nonzero(nominated.slots[nominated.taken] >= 0))
        self.trace.merge([trace for _, trace in answers], began)

    def _probe_part(
        self, first: int, end: int, effort: Effort, heaps: Heaps, threads: int, trace: Trace
    ) -> None:
        """Nominate for queries [first, end) in all segments, then measure."""
        segments = self.prepared.segments
        now = time.perf_counter_ns()
        ask = self._ask(first, end, effort, threads)
        asked: list[tuple[ReadySegment, Nominated]] = []
        for index, segment in enumerate(segments):
            asked.append((segment, self._nominate(segment, self._of_segment(segment, ask, index))))
        slots = best_slots([nominated for _, nominated in asked], effort.pool)
        now = trace.took("probe", now)
        part = heaps.of(first, end)
        for (segment, nominated), nominees in zip(asked, slots, strict=True):
            trace.probed += nominated.probed
            trace.scored += nominated.scored
            self._measure(first, end, segment, nominees, part, threads)
            trace.candidates += int(np.count_nonzero(nominees >= 0))
        trace.took("refine", now)

    def _probe_farther(self, effort: Effort, k: int, heaps: Heaps, threads: int) -> None:
        """Ask again, for more, where fewer than k rows were found though there are so many: small partitions hold few."""
        there = self.prepared.live if self._chosen is None else sum(self._chosen.counts)
        if there < k:
            return
        largest = largest_effort(self.prepared)
        while effort.effort < largest:
            lacking = heaps.lacking()
            if not len(lacking):
                return
            effort = replace(effort, effort=min(largest, effort.effort * _FARTHER))
            for run in np.split(lacking, np.flatnonzero(np.diff(lacking) > 1) + 1):
                for first in range(int(run[0]), int(run[-1]) + 1, BATCH):
                    part = slice(first, min(first + BATCH, int(run[-1]) + 1))
                    heaps.distances[part], heaps.row_ids[part] = np.inf, NO_ROW
                    self._probe(part.start, part.stop, effort, heaps, threads)

    def _ask(self, first: int, end: int, effort: Effort, threads: int) -> Ask:
        """What segments are asked for queries [first, end)."""
        return Ask(self._asked[first:end], effort.pool, effort.effort, threads=threads)

    def _measure(
        self,
        first: int,
        end: int,
        segment: ReadySegment,
        nominees: npt.NDArray[np.int64],
        part: Heaps,
        threads: int,
    ) -> None:
        """Measure what a segment nominated for queries [first, end), and offer it to their heaps."""
        matrix = self._queries_of(first, end)
        if segment.vectors is not None:
            code = element_code(self.prepared.field)
            refine_mapped(
                matrix,
                self.metric,
                code,
                nominees,
                segment.vectors.places,
                segment.row_ids,
                part,
                threads,
            )
        else:
            self.trace.read += refine_read(
                matrix, self.metric, nominees, segment, self.prepared.field, part, threads
            )

    def _queries_of(self, first: int, end: int) -> Matrix:
        whole = first == 0 and end == self.count
        return self._matrix if whole else Matrix(self._matrix.array[first:end], self._matrix.code)

    def _of_segment(self, segment: ReadySegment, ask: Ask, index: int) -> Ask:
        """What is asked of a segment: slots of its own that may be nominated."""
        chosen = self._chosen
        if chosen is not None:
            share = chosen.counts[index] / max(segment.live, 1)
            ask = replace(ask, allowed=chosen.words[index], selectivity=share)
        elif segment.words is not None:
            ask = replace(ask, allowed=segment.words, selectivity=segment.live / segment.slots)
        if ask.pool > segment.slots:
            ask = replace(ask, pool=segment.slots)
        return ask

    def _nominate(self, segment: ReadySegment, ask: Ask) -> Nominated:
        try:
            return segment.searcher.search(ask)
        except CorruptDataError as e:
            raise SegmentFault(segment.opened.segment.id, str(e)) from e

    def _scan_selected(self, chosen: Chosen, k: int, heaps: Heaps) -> None:
        """Measure all selected rows: for a few queries where they stand, for many in blocks of products."""
        prepared = self.prepared
        mapped = all(segment.vectors is not None for segment in prepared.segments)
        if not mapped or self.count > _FEW:
            self._scan(chosen.rows, k, heaps)
            return
        for segment, words in zip(prepared.segments, chosen.words, strict=True):
            assert segment.vectors is not None
            slots = np.flatnonzero(allowed_slots(words, segment.slots))
            self.trace.scanned += len(slots)
            refine_mapped(
                self._matrix,
                self.metric,
                element_code(prepared.field),
                np.tile(slots, (len(self.queries), 1)),
                segment.vectors.places,
                segment.row_ids,
                heaps,
                threads=1,
            )
        if chosen.uncovered:
            self._scan(chosen.uncovered, k, heaps)

    def _scan(self, rows_of: Sequence[Rows] | None, k: int, heaps: Heaps) -> None:
        """Measure some rows, or without any those that no segment covers."""
        prepared = self.prepared
        blocks = prepared.uncovered() if rows_of is None else blocks_of(rows_of, prepared.field)
        found, rows = nearest_among(blocks, self.queries, k=k, metric=self.metric, threads=self._threads)
        self.trace.scanned += rows
        heaps.offer(found)


class SegmentFault(CorruptDataError):
    """A segment turned out to be damaged while it was searched."""

    def __init__(self, segment: str, message: str) -> None:
        super().__init__(message)
        self.segment = segment


def warn(fault: str) -> None:
    """Say that a part of an index is not used."""
    warnings.warn(f"{fault}; its rows are scanned instead", DamagedIndexWarning, stacklevel=2)


def settle(prepared: Ready, wish: Wish, k: int) -> Effort:
    """How much each segment of an index looks at for k neighbours."""
    known = prepared.efforts.get((wish, k))
    if known is not None:
        return known
    covered = prepared.coverage
    assert covered.kind is not None
    assert covered.config is not None
    ladder: Sequence[tuple[int, int]] = ()
    if not prepared.index.calibration:
        rows = max(segment.slots for segment in prepared.segments)
        ladder = covered.kind.efforts(covered.config, rows)
    effort = settle_effort(prepared.index, ladder, wish, k=k, largest=largest_effort(prepared))
    prepared.efforts[(wish, k)] = effort
    return effort


def largest_effort(prepared: Ready) -> int:
    """The effort beyond which no segment looks at more."""
    return max(segment.searcher.largest_effort for segment in prepared.segments)


def best_slots(nominated: Sequence[Nominated], pool: int) -> list[npt.NDArray[np.int64]]:
    """The slots to measure in each segment: those with the smallest estimates over all segments, `pool` of them."""
    slots = [np.ascontiguousarray(one.slots, np.int64) for one in nominated]
    width = sum(part.shape[1] for part in slots)
    if len(nominated) == 1 or width <= pool:
        return slots
    estimates = np.concatenate([one.estimates for one in nominated], axis=1)
    limit = np.partition(estimates, pool - 1, axis=1)[:, pool - 1, None]
    return [np.where(one.estimates <= limit, part, -1) for one, part in zip(nominated, slots, strict=True)]
