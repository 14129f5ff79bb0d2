"""Create, rebuild, optimize and drop indexes: build the files from a snapshot, then commit what refers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from vectorlake.errors import ConflictError, InvalidInputError, UnsupportedError
from vectorlake.ids import NewId
from vectorlake.index.calibrate import calibrate
from vectorlake.index.calibrate_tokens import calibrate_tokens
from vectorlake.index.protocol import (
    DEFAULT_MEMORY,
    ArraySource,
    Config,
    Facts,
    IndexKind,
    Vectors,
    takes_several,
)
from vectorlake.index.registry import kind_for_reading, kind_named
from vectorlake.kernels.metric import Metric
from vectorlake.metadata.index import Index, IndexFile, IndexSegment
from vectorlake.metadata.snapshot import Snapshot, is_staged
from vectorlake.plan.commit import Delta
from vectorlake.plan.index_changes import (
    SEGMENT_ROWS,
    OptimizePlan,
    SegmentFacts,
    Shape,
    check_column,
    check_same,
    index_named,
    names_taken,
    new_name,
    plan_optimize,
    with_index,
    without_index,
)
from vectorlake.schema import Field, describe, is_multivector, is_vector, listing
from vectorlake.table.commit import Build
from vectorlake.table.coverage import Coverage, column_of, coverage, open_file, opened, shape_of
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
from vectorlake.table.index_source import Among, ColumnVectors, Rows
from vectorlake.table.log import TableLog
from vectorlake.table.scan import default_threads
from vectorlake.table.view import View
from vectorlake.tracing import span

LEAST_MEMORY: Final = 32 << 20
_REWINDS: Final = frozenset({"restore"})
"""Operations after which values of earlier versions are there again."""


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
        self._view = view
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
        field = index_column(self._view.snapshot, column)
        known = kind_named(kind)
        chosen = new_name(snapshot, name, field.name, kind)
        wanted = Metric.parse(metric) if isinstance(metric, str) else metric
        blank = self._settled(chosen, field, known, wanted, options)
        return self._committing("create-index", self._built(blank, known, field), before=None)

    def rebuild(self, name: str, snapshot: Snapshot, *, options: Mapping[str, Any]) -> Build:
        """An index made anew, as it was made, but for the options given; those that were chosen are chosen again.

        Raises:
            NotFoundError: no such index.
            UnsupportedError: it is of a kind or version that this release does not know.
        """
        before = index_named(snapshot, name)
        field = next((f for f in self._view.snapshot.schema.fields if f.id == before.field_id), None)
        if field is None:
            raise UnsupportedError(f"the column of index {name!r} was dropped: drop the index too")
        known = readable_kind(before)
        given = {key: value for key, value in before.options.items() if key not in before.chosen}
        metric = _metric_of(before)
        blank = self._settled(name, field, known, metric, {**given, **options})
        return self._committing("rebuild-index", self._built(blank, known, field), before=before)

    def optimize(self, plans: Sequence[OptimizePlan], snapshot: Snapshot) -> Build | None:
        """Carry out what was planned for some indexes; None if that is nothing."""
        done: list[tuple[Index, Index, OptimizePlan]] = []
        written: list[IndexFile] = []
        try:
            for plan in plans:
                if not plan:
                    continue
                before = index_named(snapshot, plan.index)
                after = self._optimized(before, plan, written)
                done.append((before, after, plan))
        except BaseException:
            discard(self._view.store, written)
            raise
        if not done:
            return None
        return self._optimizing(done)

    def _optimizing(self, done: Sequence[tuple[Index, Index, OptimizePlan]]) -> Build:
        """The change from some indexes (before, after) by what was planned for them."""
        base, log = self._view.snapshot, self._view.log

        def change(head: Snapshot) -> Delta:
            check_not_rewound(log, base, head)
            indexes = head.indexes
            for before, after, _ in done:
                now = check_same(before, head, "optimized")
                check_column(after, base, head)
                indexes = with_index(indexes, with_versions_of(now, after))
            return Delta("optimize-index", indexes=indexes, summary=_told(done))

        return change

    def _settled(
        self, name: str, field: Field, kind: IndexKind, metric: Metric, options: Mapping[str, Any]
    ) -> Index:
        """An index without files, its options settled; nothing was read but metadata."""
        shape = shape_of(field)
        assert shape is not None
        dimension, element = shape
        check_supported(kind, field, metric, element)
        rows = rows_with_value(self._view, field)
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

    def _work(self, index: Index, kind: IndexKind) -> Work:
        settings = self._settings
        return Work(
            store=self._view.store,
            new_id=self._new_id,
            kind=kind,
            config=Config(
                index.kind, Metric(index.metric), index.dimension, index.element, dict(index.options)
            ),
            threads=settings.threads or default_threads(self._view.store),
            memory=settings.memory_limit,
            segment_rows=settings.segment_rows,
            progress=settings.progress,
        )

    def _vectors(self, index: Index, field: Field, rows: Sequence[Rows]) -> ColumnVectors:
        threads = self._settings.threads or default_threads(self._view.store)
        return ColumnVectors(
            self._view,
            field,
            rows,
            Metric(index.metric),
            threads=threads,
            memory=self._settings.memory_limit,
        )

    def _built(self, blank: Index, kind: IndexKind, field: Field) -> Index:
        """The index with its model and segments written, of all rows."""
        work = self._work(blank, kind)
        rows = [(reader, reader.all_live()) for reader in self._view.readers()]
        vectors = self._vectors(blank, field, [(r, at) for r, at in rows if len(at)])
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
            for segment in build(work, model, vectors, self._view.snapshot.version):
                written.append(segment.file)
                segments.append(segment)
            self._view.store.sync_folders([one.path for one in written])
            index = msgspec.structs.replace(blank, model=file, segments=tuple(segments))
            return self._calibrated(index, work, vectors)
        except BaseException:
            discard(self._view.store, written)
            raise

    def _calibrated(self, index: Index, work: Work, vectors: ColumnVectors) -> Index:
        """The index with its recall measured, on its largest segment."""
        if not self._settings.calibrate:
            return index
        largest = max(index.segments, key=lambda segment: segment.rows)
        searcher = opened(self._view, work.kind, work.config, index.model, largest)
        rows: Vectors = vectors if len(index.segments) == 1 else Among(vectors, searcher.row_ids)
        with span("calibrate", kind=index.kind, rows=largest.rows):
            rng = np.random.default_rng(self._settings.seed)
            measure = calibrate_tokens if vectors.several else calibrate
            found = measure(work.kind, work.config, searcher, rows, rng=rng, threads=work.threads)
        return msgspec.structs.replace(index, calibration=found)

    def _optimized(self, before: Index, plan: OptimizePlan, written: list[IndexFile]) -> Index:
        kind = readable_kind(before)
        if plan.retrain:
            field = next(f for f in self._view.snapshot.schema.fields if f.id == before.field_id)
            given = {key: value for key, value in before.options.items() if key not in before.chosen}
            blank = self._settled(before.name, field, kind, _metric_of(before), given)
            made = self._built(blank, kind, field)
            written += [made.model, *(segment.file for segment in made.segments)]
            return made
        column_of(self._view, before)
        covered = coverage(self._view, before)
        segments = self._kept_and_new(before, plan, covered, kind, written)
        self._view.store.sync_folders([one.path for one in written])
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
        work, version = self._work(before, kind), self._view.snapshot.version
        field = column_of(self._view, before)
        model = open_file(self._view, before.model)
        fresh: list[IndexSegment] = []

        def write(made: Made | None, skipped: np.ndarray) -> None:
            fresh.append(write_segment(work, made, skipped, version))
            written.append(fresh[-1].file)

        def joined(ids: Sequence[str], more: Sequence[tuple[Made | None, np.ndarray]]) -> None:
            write(*self._joined(work, model, covered, ids, more))

        added: list[tuple[Made | None, np.ndarray]] = []
        if plan.add_rows:
            for one in encoded(work, model, self._vectors(before, field, covered.uncovered)):
                if plan.merge_added:
                    added.append(one)
                else:
                    write(*one)
        if plan.merge:
            joined(plan.merge, added)
        for one_id in plan.rewrite:
            joined([one_id], [])
        gone = {*plan.merge, *plan.rewrite, *plan.drop}
        return (*(segment for segment in before.segments if segment.id not in gone), *fresh)

    def _joined(
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
            (open_file(self._view, opened[one].segment.file), opened[one].live)
            for one in ids
            if one in opened and states[one].live
        ]
        sources += [(made.source, np.ones(len(made.arrays["row_ids"]), bool)) for made, _ in more if made]
        skipped = np.concatenate(
            [np.empty(0, np.int64), *(states[one].skipped for one in ids), *(ids_ for _, ids_ in more)]
        )
        return merged(work, model, sources) if sources else None, skipped

    def _committing(self, operation: str, index: Index, *, before: Index | None) -> Build:
        base, log = self._view.snapshot, self._view.log

        def change(head: Snapshot) -> Delta:
            check_not_rewound(log, base, head)
            check_column(index, base, head)
            if before is not None:
                check_same(before, head, "rebuilt")
            elif index.name in names_taken(head):
                raise ConflictError(
                    f"another writer has created index {index.name!r} meanwhile; nothing was committed: drop or rebuild "
                    "that one, or choose another name"
                )
            summary = {"index": index.name, **_counts([index])}
            return Delta(operation, indexes=with_index(head.indexes, index), summary=summary)

        return change


def drop_index(name: str, snapshot: Snapshot) -> Build:
    """The change that takes an index away; its files stay while earlier versions refer to them.

    Raises:
        NotFoundError: no such index.
    """
    index_named(snapshot, name)

    def change(head: Snapshot) -> Delta | None:
        if all(index.name != name for index in head.indexes):
            return None
        return Delta("drop-index", indexes=without_index(head.indexes, name), summary={"index": name})

    return change


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


def index_column(snapshot: Snapshot, column: str | None) -> Field:
    """The column to index: the one named, or the only one with vectors.

    Raises:
        NotFoundError: no such column.
        InvalidInputError: it holds no vectors; or none is named, and there is not exactly one.
    """
    fields = [f for f in snapshot.schema.fields if is_vector(f.type) or is_multivector(f.type)]
    names = [field.name for field in fields]
    if column is not None:
        field = snapshot.schema.field(column)
        if field.name not in names:
            raise InvalidInputError(
                f"column {column!r} is {describe(field.type, field.logical)}, not a vector; the vector columns are "
                f"{listing(names)}"
            )
        return field
    if len(fields) != 1:
        raise InvalidInputError(
            "the table has no vector column"
            if not fields
            else f"the table has several vector columns ({listing(names)}): name one with column="
        )
    return fields[0]


def check_supported(kind: IndexKind, field: Field, metric: Metric, element: str) -> None:
    """Refuse what a kind can't do.

    Raises:
        InvalidInputError: names the metric or type, and those that it can do.
    """
    if takes_several(kind) != is_multivector(field.type):
        one = "multivectors" if is_multivector(field.type) else "vectors"
        fitting = "tokens" if is_multivector(field.type) else "ivf"
        raise InvalidInputError(
            f"an index of kind {kind.name!r} can't hold column {field.name!r} of {one}: use kind={fitting!r}"
        )
    if metric not in kind.metrics:
        known = listing(sorted(one.value for one in kind.metrics))
        raise InvalidInputError(
            f"an index of kind {kind.name!r} has no metric {metric.value!r}; its metrics are {known}"
        )
    if element not in kind.elements:
        raise InvalidInputError(
            f"an index of kind {kind.name!r} can't hold column {field.name!r}: its vectors are of {element}, and the kind "
            f"takes {listing(sorted(kind.elements))}"
        )


def readable_kind(index: Index) -> IndexKind:
    """The kind of an index, if this release can change it.

    Raises:
        UnsupportedError: it can't.
    """
    return kind_for_reading(index.kind, index.kind_version, f"index {index.name!r}")


def rows_with_value(view: View, field: Field) -> int:
    """Live rows that have a value in a column, by the statistics; where there are none, all rows count."""
    total = 0
    for fragment in view.fragments():
        known = fragment.bounds.get(field.id)
        nulls = known.null_count if known is not None and known.null_count is not None else 0
        missing = fragment.file_of(field.id) is None and field.default is None
        if not missing or fragment.constants.get(field.id) is not None:
            total += max(min(fragment.live_rows, fragment.row_count - nulls), 0)
    return total


def check_not_rewound(log: TableLog, base: Snapshot, head: Snapshot) -> None:
    """Refuse segments of values that may no longer be the latest: after a restore earlier ones are there again.

    Raises:
        ConflictError: the table was restored since `base`, or it can't be told.
    """
    for version in range(base.version + 1, head.version + 1):
        found = head if version == head.version else log.find(version)
        names = {"restore"} if found is None else {found.operation, *found.summary.get("operations", ())}
        if names & _REWINDS and not (found is not None and is_staged(found)):
            raise ConflictError(
                "the table was restored to an earlier version while the index was built; nothing was committed: refresh "
                "the table and call again"
            )


def with_versions_of(now: Index, after: Index) -> Index:
    """An index whose segments have the versions that they have by now (compaction raises them)."""
    known = {segment.id: segment for segment in now.segments}
    return msgspec.structs.replace(
        after, segments=tuple(known.get(segment.id, segment) for segment in after.segments)
    )


def _metric_of(index: Index) -> Metric:
    try:
        return Metric(index.metric)
    except ValueError as e:
        raise UnsupportedError(
            f"index {index.name!r} has metric {index.metric!r}, unknown to this release: upgrade vectorlake"
        ) from e


def _counts(indexes: Sequence[Index]) -> dict[str, int]:
    segments = [segment for index in indexes for segment in index.segments]
    files = {segment.file.path: segment.file.size for segment in segments}
    files |= {index.model.path: index.model.size for index in indexes}
    return {
        "indexed_rows": sum(segment.rows for segment in segments),
        "index_files": len(files),
        "index_bytes": sum(files.values()),
    }


def _told(done: Sequence[tuple[Index, Index, OptimizePlan]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"index": ", ".join(after.name for _, after, _ in done)}
    counts = {
        "indexed_rows": sum(plan.add_rows for _, _, plan in done),
        "merged_segments": sum(len(plan.merge) + len(plan.rewrite) for _, _, plan in done),
        "dropped_segments": sum(len(plan.drop) for _, _, plan in done),
        "retrained_indexes": sum(plan.retrain for _, _, plan in done),
    }
    return summary | {name: count for name, count in counts.items() if count}
