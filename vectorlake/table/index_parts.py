"""Build an index in parts, in other processes: settle, train, encode ranges of rows, merge; one of them commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from vectorlake.errors import InvalidInputError
from vectorlake.index.registry import kind_named
from vectorlake.kernels.metric import Metric
from vectorlake.metadata import codec
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.index_changes import OptimizePlan, Shape, index_named, new_name
from vectorlake.table.coverage import column_of, config_of, coverage, open_file
from vectorlake.table.index_build import encoded, train, write_model, write_segment
from vectorlake.table.index_commit import commit_built, commit_optimized
from vectorlake.table.index_source import ColumnVectors, Rows
from vectorlake.table.indexable import index_column, readable_kind
from vectorlake.table.indexing import Indexing, Settings, plans
from vectorlake.table.ref import TableRef
from vectorlake.table.scan import RowRange

if TYPE_CHECKING:
    from vectorlake.table.table import Table

Json: TypeAlias = dict[str, Any]
"""An index, or one of its segments, as a snapshot has it."""


@dataclass(frozen=True)
class IndexWork:
    """The building of indexes of one version of a table. Picklable; what goes from step to step is JSON.

    A new index: `settle`, `train`, `encode` for all of `uncovered`, `merge` if there are more segments than wanted,
    `calibrate`, `commit`. One that is there and lacks rows: `plan`, `encode`, `merge`, `commit_optimized`. The files that
    this writes are orphans until the commit.

    Attributes:
        table: the pinned version.
        memory: bytes for each step, roughly.
        threads: for each step; None for one a core.
        seed: of everything random.
        segment_rows: rows of a segment, at most.
    """

    table: TableRef
    memory: int = 1 << 30
    threads: int | None = None
    seed: int = 0
    segment_rows: int = Settings.segment_rows

    # --- deciding, from metadata

    def settle(
        self, column: str | None, kind: str, *, name: str | None, metric: str, options: Mapping[str, Any]
    ) -> Json:
        """A new index without files; arguments and errors as for `Table.create_index`."""
        work = self._work()
        snapshot = work.view.snapshot
        chosen = index_column(snapshot, column)
        named = new_name(snapshot, name, chosen.name, kind)
        return _json(work.settled(named, chosen, kind_named(kind), Metric.parse(metric), dict(options)))

    def settle_again(self, name: str) -> Json:
        """An index that is there, without files and with a model id of its own; what was chosen is chosen again.

        Raises:
            NotFoundError: there is none of that name.
        """
        work = self._work()
        before = index_named(work.view.snapshot, name)
        kind = readable_kind(before)
        chosen = column_of(work.view, before)
        return _json(work.settled(name, chosen, kind, config_of(before).metric, before.given))

    def plan(self, name: str, shape: Shape) -> OptimizePlan:
        """What an index needs.

        Raises:
            NotFoundError: there is none of that name.
        """
        view = self._work().view
        return plans(view, view.snapshot, name, shape)[0]

    def of(self, name: str) -> Json:
        """An index that is there.

        Raises:
            NotFoundError: there is none of that name.
        """
        return _json(index_named(self.table.open().snapshot, name))

    def uncovered(self, index: Json, rows: int) -> Iterator[tuple[tuple[RowRange, ...], int]]:
        """The rows that no segment of an index covers, in ranges of about so many, and how many are in each."""
        for reader, positions in self._rows(_index(index)):
            pieces = max(1, -(-len(positions) // rows))
            for part in np.array_split(positions, pieces):
                if len(part):
                    known = RowRange(reader.fragment.id, int(part[0]), int(part[-1]) + 1)
                    yield (known,), len(part)

    # --- doing, each writes files

    def train(self, index: Json) -> Json:
        """The index with its model.

        Raises:
            InvalidInputError: there is nothing to learn from.
        """
        work, blank = self._work(), _index(index)
        kind = readable_kind(blank)
        made = work.work_of(blank, kind)
        vectors = self._vectors(work, blank, self._rows(blank))
        rng = np.random.default_rng(self.seed)
        if not len(vectors.sample(1, rng)):
            raise InvalidInputError(
                f"column {column_of(work.view, blank).name!r} holds no vector that could match a query: there is nothing "
                "to index"
            )
        file = write_model(made, train(made, vectors, rng), blank.model_id)
        work.view.store.sync_folders([file.path])
        return _json(msgspec.structs.replace(blank, model=file))

    def encode(self, index: Json, ranges: Sequence[RowRange]) -> list[Json]:
        """Segments of those of some rows that the index does not cover."""
        work, known = self._work(), _index(index)
        made = work.work_of(known, readable_kind(known))
        model = open_file(work.view, known.model)
        vectors = self._vectors(work, known, list(_within(self._rows(known), ranges)))
        segments = [
            write_segment(made, one, skipped, work.view.snapshot.version)
            for one, skipped in encoded(made, model, vectors)
        ]
        work.view.store.sync_folders([segment.file.path for segment in segments])
        return [codec.to_builtins(segment) for segment in segments]

    def merge(self, index: Json, ids: Sequence[str]) -> Json:
        """Some segments of an index as one, without their dead rows."""
        work, known = self._work(), _index(index)
        made = work.work_of(known, readable_kind(known))
        covered = coverage(work.view, known)
        joined, skipped = work.joined(made, open_file(work.view, known.model), covered, ids)
        segment = write_segment(made, joined, skipped, work.view.snapshot.version)
        work.view.store.sync_folders([segment.file.path])
        plain: Json = codec.to_builtins(segment)
        return plain

    def calibrate(self, index: Json) -> Json:
        """The index with its recall measured."""
        work, known = self._work(), _index(index)
        vectors = self._vectors(work, known, work.all_rows())
        return _json(work.calibrated(known, work.work_of(known, readable_kind(known)), vectors))

    # --- committing

    def commit(self, table: Table, index: Json, *, before: Json | None = None) -> Snapshot:
        """Commit a new index, or one made anew in the place of `before`; atomicity and errors as for `create_index`."""
        operation = "create-index" if before is None else "rebuild-index"
        was = None if before is None else _index(before)
        return table.commit(commit_built(self._work().view, operation, _index(index), before=was))

    def commit_optimized(self, table: Table, before: Json, after: Json, plan: OptimizePlan) -> Snapshot:
        """Commit an index with other segments; atomicity and errors as for `optimize_indexes`."""
        return table.commit(commit_optimized(self._work().view, [(_index(before), _index(after), plan)]))

    # --- the insides

    def _work(self) -> Indexing:
        settings = Settings(self.memory, self.threads, self.seed, self.segment_rows)
        view = self.table.open().view
        return Indexing(view, new_id=view.files.context.new_id, settings=settings)

    def _rows(self, index: Index) -> Sequence[Rows]:
        work = self._work()
        return coverage(work.view, index).uncovered if index.segments else work.all_rows()

    @staticmethod
    def _vectors(work: Indexing, index: Index, rows: Sequence[Rows]) -> ColumnVectors:
        return work.vectors_of(index, column_of(work.view, index), rows)


def _within(rows: Sequence[Rows], ranges: Sequence[RowRange]) -> Iterator[Rows]:
    """Those of the rows that lie in some ranges."""
    for known in ranges:
        for reader, positions in rows:
            if reader.fragment.id == known.fragment_id:
                low, high = np.searchsorted(positions, [known.start, known.stop])
                if low < high:
                    yield reader, positions[low:high]


def _json(index: Index) -> Json:
    plain: Json = codec.to_builtins(index)
    return plain


def _index(value: Json) -> Index:
    return codec.from_builtins(Index, value)
