"""Create, rebuild and optimize indexes: build the files from a snapshot, and return the change that refers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.ids import NewId
from vectorlake.index.calibrate import calibrate
from vectorlake.index.calibrate_tokens import calibrate_tokens
from vectorlake.index.protocol import (
    DEFAULT_MEMORY,
    ArraySource,
    Facts,
    IndexKind,
    Vectors,
)
from vectorlake.index.registry import kind_named
from vectorlake.kernels.metric import Metric
from vectorlake.metadata.index import Index, IndexFile, IndexSegment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.index_changes import (
    SEGMENT_ROWS,
    OptimizePlan,
    SegmentFacts,
    Shape,
    index_named,
    new_name,
    plan_optimize,
)
from vectorlake.schema import Field
from vectorlake.table.commit import Build
from vectorlake.table.coverage import Coverage, column_of, config_of, coverage, open_file, opened, shape_of
from vectorlake.table.index_build import (
    Made,
    Progress,
    Work,
    build,
    discard,
    encoded,
    merged,
    train,
    write_model,
    write_segment,
)
from vectorlake.table.index_commit import Optimized, commit_built, commit_optimized
from vectorlake.table.index_source import Among, ColumnVectors, Rows
from vectorlake.table.indexable import (
    check_supported,
    index_column,
    readable_kind,
    rows_with_value,
)
from vectorlake.table.scan import default_threads
from vectorlake.table.view import View
from vectorlake.tracing import span

LEAST_MEMORY: Final = 32 << 20


@dataclass(frozen=True)
class Settings:
    """How to build, whatever the kind.

    Attributes:
        memory_limit: bytes to use, roughly.
        threads: None for one a core.
        seed: of everything random: the same data and seed give the same index.
        segment_rows: of a segment, at most.
        calibrate: measure recall after training, so that a search can be asked for a recall.
    """

    memory_limit: int = DEFAULT_MEMORY
    threads: int | None = None
    seed: int = 0
    segment_rows: int = SEGMENT_ROWS
    calibrate: bool = True
    progress: Progress | None = None

    def checked(self) -> Settings:
        """These settings.

        Raises:
            InvalidInputError: one of them can't be.
        """
        whole: list[tuple[str, object, int]] = [
            ("memory_limit", self.memory_limit, LEAST_MEMORY),
            ("seed", self.seed, 0),
            ("segment_rows", self.segment_rows, 1),
        ]
        if self.threads is not None:
            whole.append(("threads", self.threads, 1))
        for name, value, least in whole:
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InvalidInputError(f"{name} must be an integer of at least {least:,}, not {value!r}")
        return self


class Indexing:
    """Work on the indexes of one snapshot; each method builds files and returns the change to commit."""

    def __init__(self, view: View, *, new_id: NewId, settings: Settings | None = None) -> None:
        self.view = view
        self._new_id = new_id
        self._settings = (settings or Settings()).checked()

    def create(
        self,
        column: str | None,
        kind: str,
        *,
        name: str | None,
        metric: str | Metric,
        options: Mapping[str, Any],
        snapshot: Snapshot,
    ) -> Build:
        """A new index of a column; `snapshot` tells which names are taken.

        Raises:
            InvalidInputError: whatever can't be; nothing was written.
            NotFoundError: no such column.
            AlreadyExistsError: the name is taken.
        """
        field = index_column(self.view.snapshot, column)
        known = kind_named(kind)
        chosen = new_name(snapshot, name, field.name, kind)
        wanted = Metric.parse(metric) if isinstance(metric, str) else metric
        blank = self.settled(chosen, field, known, wanted, options)
        return commit_built(self.view, "create-index", self._built(blank, known, field), before=None)

    def rebuild(self, name: str, snapshot: Snapshot, *, options: Mapping[str, Any]) -> Build:
        """An index made anew, as it was made, but for the options given; those that were chosen are chosen again.

        Raises:
            NotFoundError: no such index.
            UnsupportedError: it is of a kind or version that this release does not know.
        """
        before = index_named(snapshot, name)
        field = next((f for f in self.view.snapshot.schema.fields if f.id == before.field_id), None)
        if field is None:
            raise UnsupportedError(f"the column of index {name!r} was dropped: drop the index too")
        known = readable_kind(before)
        metric = config_of(before).metric
        blank = self.settled(name, field, known, metric, {**before.given, **options})
        return commit_built(self.view, "rebuild-index", self._built(blank, known, field), before=before)

    def optimize(self, plans: Sequence[OptimizePlan], snapshot: Snapshot) -> Build | None:
        """Carry out what was planned for some indexes; None if that is nothing."""
        done: list[Optimized] = []
        written: list[IndexFile] = []
        try:
            for plan in plans:
                if not plan:
                    continue
                before = index_named(snapshot, plan.index)
                after = self._optimized(before, plan, written)
                done.append((before, after, plan))
        except BaseException:
            discard(self.view.store, written)
            raise
        if not done:
            return None
        return commit_optimized(self.view, done)

    def settled(
        self, name: str, field: Field, kind: IndexKind, metric: Metric, options: Mapping[str, Any]
    ) -> Index:
        """An index without files, its options settled; nothing was read but metadata."""
        shape = shape_of(field)
        assert shape is not None
        dimension, element = shape
        check_supported(kind, field, metric, element)
        rows = rows_with_value(self.view, field)
        if not rows:
            raise InvalidInputError(
                f"column {field.name!r} holds no vectors yet: add rows with vectors first"
            )
        settled = kind.resolve(Facts(rows, dimension, element, metric), dict(options))
        return Index(
            name=name,
            field_id=field.id,
            kind=kind.name,
            kind_version=kind.version,
            metric=metric.value,
            dimension=dimension,
            element=element,
            model_id=self._new_id(),
            model=IndexFile("", 0, "", {}),
            options=dict(settled.options),
            chosen=dict(settled.chosen),
            trained_rows=rows,
        )

    def all_rows(self) -> list[Rows]:
        """The live rows of all fragments that have any."""
        rows = [(reader, reader.all_live()) for reader in self.view.readers()]
        return [(reader, positions) for reader, positions in rows if len(positions)]

    def work_of(self, index: Index, kind: IndexKind) -> Work:
        """What building the files of an index takes."""
        settings = self._settings
        return Work(
            store=self.view.store,
            new_id=self._new_id,
            kind=kind,
            config=config_of(index),
            threads=settings.threads or default_threads(self.view.store),
            memory=settings.memory_limit,
            segment_rows=settings.segment_rows,
            progress=settings.progress,
        )

    def vectors_of(self, index: Index, field: Field, rows: Sequence[Rows]) -> ColumnVectors:
        """The vectors of some rows, as the index takes them."""
        threads = self._settings.threads or default_threads(self.view.store)
        return ColumnVectors(
            self.view,
            field,
            rows,
            Metric(index.metric),
            threads=threads,
            memory=self._settings.memory_limit,
        )

    def _built(self, blank: Index, kind: IndexKind, field: Field) -> Index:
        """The index with its model and segments written, of all rows."""
        work = self.work_of(blank, kind)
        vectors = self.vectors_of(blank, field, self.all_rows())
        rng = np.random.default_rng(self._settings.seed)
        if not len(vectors.sample(1, rng)):
            raise InvalidInputError(
                f"column {field.name!r} holds no vector that could match a query (all are null, or hold NaN or "
                "infinity, or are zero under cosine): there is nothing to index"
            )
        model = train(work, vectors, rng)
        written: list[IndexFile] = []
        try:
            file = write_model(work, model, blank.model_id)
            written.append(file)
            segments: list[IndexSegment] = []
            for segment in build(work, model, vectors, self.view.snapshot.version):
                written.append(segment.file)
                segments.append(segment)
            self.view.store.sync_folders([one.path for one in written])
            index = msgspec.structs.replace(blank, model=file, segments=tuple(segments))
            return self.calibrated(index, work, vectors)
        except BaseException:
            discard(self.view.store, written)
            raise

    def calibrated(self, index: Index, work: Work, vectors: ColumnVectors) -> Index:
        """The index with its recall measured, on its largest segment."""
        if not self._settings.calibrate:
            return index
        largest = max(index.segments, key=lambda segment: segment.rows)
        searcher = opened(self.view, work.kind, work.config, index.model, largest)
        rows: Vectors = vectors if len(index.segments) == 1 else Among(vectors, searcher.row_ids)
        with span("calibrate", kind=index.kind, rows=largest.rows):
            rng = np.random.default_rng(self._settings.seed)
            measure = calibrate_tokens if vectors.several else calibrate
            found = measure(work.kind, work.config, searcher, rows, rng=rng, threads=work.threads)
        return msgspec.structs.replace(index, calibration=found)

    def _optimized(self, before: Index, plan: OptimizePlan, written: list[IndexFile]) -> Index:
        kind = readable_kind(before)
        if plan.retrain:
            field = next(f for f in self.view.snapshot.schema.fields if f.id == before.field_id)
            blank = self.settled(before.name, field, kind, config_of(before).metric, before.given)
            made = self._built(blank, kind, field)
            written += [made.model, *(segment.file for segment in made.segments)]
            return made
        column_of(self.view, before)
        covered = coverage(self.view, before)
        segments = self._kept_and_new(before, plan, covered, kind, written)
        self.view.store.sync_folders([one.path for one in written])
        return msgspec.structs.replace(before, segments=segments)

    def _kept_and_new(
        self,
        before: Index,
        plan: OptimizePlan,
        covered: Coverage,
        kind: IndexKind,
        written: list[IndexFile],
    ) -> tuple[IndexSegment, ...]:
        """The segments that stay as they are, and those that this writes."""
        work, version = self.work_of(before, kind), self.view.snapshot.version
        field = column_of(self.view, before)
        model = open_file(self.view, before.model)
        fresh: list[IndexSegment] = []

        def write(made: Made | None, skipped: np.ndarray) -> None:
            fresh.append(write_segment(work, made, skipped, version))
            written.append(fresh[-1].file)

        def join(ids: Sequence[str], more: Sequence[tuple[Made | None, np.ndarray]]) -> None:
            write(*self.joined(work, model, covered, ids, more))

        added: list[tuple[Made | None, np.ndarray]] = []
        if plan.add_rows:
            for one in encoded(work, model, self.vectors_of(before, field, covered.uncovered)):
                if plan.merge_added:
                    added.append(one)
                else:
                    write(*one)
        if plan.merge:
            join(plan.merge, added)
        for one_id in plan.rewrite:
            join([one_id], [])
        gone = {*plan.merge, *plan.rewrite, *plan.drop}
        return (*(segment for segment in before.segments if segment.id not in gone), *fresh)

    def joined(
        self,
        work: Work,
        model: ArraySource,
        covered: Coverage,
        ids: Sequence[str],
        more: Sequence[tuple[Made | None, np.ndarray]] = (),
    ) -> tuple[Made | None, np.ndarray]:
        """Some segments, and what was encoded besides, as one without dead rows; and the rows that these skipped."""
        states = {state.segment.id: state for state in covered.states}
        opened = {one.segment.id: one for one in covered.segments}
        sources: list[tuple[ArraySource, np.ndarray]] = [
            (open_file(self.view, opened[one].segment.file), opened[one].live)
            for one in ids
            if one in opened and states[one].live
        ]
        sources += [(made.source, np.ones(len(made.arrays["row_ids"]), bool)) for made, _ in more if made]
        skipped = np.concatenate(
            [np.empty(0, np.int64), *(states[one].skipped for one in ids), *(ids_ for _, ids_ in more)]
        )
        return merged(work, model, sources) if sources else None, skipped


def plans(view: View, snapshot: Snapshot, name: str | None, shape: Shape) -> list[OptimizePlan]:
    """What an index, or without a name all of them, need.

    Raises:
        NotFoundError: no such index.
        UnsupportedError: one is of a kind or version that this release does not know.
    """
    found: list[OptimizePlan] = []
    for index in snapshot.indexes if name is None else [index_named(snapshot, name)]:
        readable_kind(index)
        covered = coverage(view, index)
        facts = [
            SegmentFacts(s.segment.id, s.live_rows, s.dead, damaged=s.fault is not None)
            for s in covered.states
        ]
        found.append(
            plan_optimize(
                index,
                facts,
                uncovered=covered.uncovered_rows,
                rows=view.snapshot.num_rows,
                model_fault=covered.model_fault,
                shape=shape,
            )
        )
    return found
