"""Run a compaction: rewrite groups of fragments, and commit those of which nobody has changed what was copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError, UnsupportedError
from vectorlake.formats.checksum import source_checksum
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import encode_deletes, to_bitmap, to_positions
from vectorlake.metadata.fragment import BallSegment, DataFile, Fragment
from vectorlake.metadata.snapshot import Snapshot, is_staged
from vectorlake.plan.commit import Delta, FragmentUpdate
from vectorlake.plan.compaction import (
    CompactionPlan,
    Group,
    Target,
    Work,
    facts_of,
    plan_compaction,
    together,
)
from vectorlake.plan.layout import FRAGMENT_ROWS, column_groups
from vectorlake.plan.scan import ROW_ID_COLUMN, VERSION_COLUMN
from vectorlake.schema import ROW_ID_FIELD_ID, Field
from vectorlake.table.balls import BallCollector, vector_fields
from vectorlake.table.deletes import FOLDER as DELETES
from vectorlake.table.differ import difference
from vectorlake.table.follow import newly_deleted, replaced_fields, same
from vectorlake.table.fragment_reader import ROW_ID_FIELD, VERSION_FIELD, FragmentReader
from vectorlake.table.images import CHUNK_ROWS, regrouped
from vectorlake.table.key_segments import KeyCollector
from vectorlake.table.keys import enforced, key_fields
from vectorlake.table.scan import MORSEL_ROWS, default_threads, ordered_map, width_of
from vectorlake.table.small_files import read_together, simple_fragments
from vectorlake.table.view import View, find_fragments
from vectorlake.table.writer import FragmentWriter, discard, unsupported, write_fragments

MEMORY: Final = 512 * 1024 * 1024
"""The memory that a compaction uses at most, roughly, unless it is told otherwise."""
_AHEAD: Final = 8
"""Pieces of rows that are in memory at a time: being read, waiting, being written."""

Progress = Callable[[int, int], None]
"""Told rows done and rows in all, now and then."""


def make_plan(view: View, target: Target) -> CompactionPlan:
    """What a compaction of a version would do, from its manifests alone."""
    snapshot = view.snapshot
    parts = [
        facts_of(view.log.manifest(ref), snapshot.schema, snapshot.properties, unsupported)
        for ref in snapshot.manifests
    ]
    return plan_compaction(snapshot.version, together(parts), target)


@dataclass(frozen=True)
class Rewritten:
    """A group that has been rewritten; nobody refers to its new files yet."""

    group: Group
    inputs: tuple[Fragment, ...]
    added: tuple[Fragment, ...] = ()
    update: FragmentUpdate | None = None
    """Instead of new fragments: new files for the one that stays."""
    order: np.ndarray | None = None
    """Where each live row of the inputs went, counted through the new fragments; None: they kept their order."""


@dataclass(frozen=True)
class _Run:
    """Small fragments that are read together."""

    fragments: tuple[Fragment, ...]


@dataclass(frozen=True)
class _Range:
    """Some physical rows of a fragment."""

    reader: FragmentReader
    start: int
    stop: int


_Piece: TypeAlias = _Run | _Range


class Compaction:
    """The rewriting of a plan's groups as a change to whatever head there is."""

    def __init__(
        self,
        view: View,
        plan: CompactionPlan,
        *,
        new_id: NewId,
        memory: int = MEMORY,
        progress: Progress | None = None,
        done: Sequence[Rewritten] | None = None,
    ) -> None:
        """Without `done`, what others have rewritten already, this rewrites all groups of the plan."""
        self._view = view
        self._plan = plan
        self._new_id = new_id
        self._memory = memory
        self._progress = progress
        self._rows_done = 0
        self._done = list(map(self.rewrite, plan.groups) if done is None else done)

    def rewrite(self, group: Group) -> Rewritten:
        """Rewrite one group."""
        wanted = {int(number) for number in group.fragments}
        found = find_fragments(self._view.log, self._view.snapshot, wanted)
        return self._rewrite(group, tuple(found[int(number)] for number in group.fragments))

    def __call__(self, head: Snapshot) -> Delta | None:
        """The change to `head`: groups of which others have rewritten a fragment or a column are left out; rows that
        others have deleted are deleted where they are now."""
        base = self._view.snapshot
        moved: Mapping[int, tuple[Fragment, Fragment]] = {}
        gone: set[int] = set()
        done = self._done
        if not same(base, head):
            if is_staged(base):
                return None
            between = difference(self._view.log, base, head)
            moved = {before.id: (before, after) for before, after in between.changed}
            gone = {fragment.id for fragment in between.removed}
            done = [one for one in done if self._applies(one, moved, gone)]
        if not done:
            return None
        added = [fragment for one in done for fragment in self._added(one, moved)]
        removed = {fragment.id for one in done if one.update is None for fragment in one.inputs}
        return Delta(
            "cluster" if self._plan.order else "compact",
            added=tuple(added),
            removed=frozenset(removed),
            updates=tuple(one.update for one in done if one.update is not None),
            summary=self._summary(done, len(added)),
        )

    def _summary(self, done: Sequence[Rewritten], added: int) -> dict[str, Any]:
        stayed = sum(one.update is not None for one in done)
        counts = {
            "fragments_before": sum(len(one.inputs) for one in done),
            "fragments_after": added + stayed,
            "moved_rows": sum(one.group.rows for one in done),
            "folded_deletes": sum(one.group.deleted for one in done),
            "skipped_groups": len(self._done) - len(done),
        }
        return {key: count for key, count in counts.items() if count}

    def _applies(
        self, one: Rewritten, changed: Mapping[int, tuple[Fragment, Fragment]], gone: set[int]
    ) -> bool:
        for fragment in one.inputs:
            if fragment.id in gone:
                return False
            if fragment.id in changed:
                before, after = changed[fragment.id]
                # Deleted rows that a restore has brought back are in no new fragment.
                if replaced_fields(before, after) or newly_deleted(self._view, after, before):
                    return False
        return True

    def _added(self, one: Rewritten, changed: Mapping[int, tuple[Fragment, Fragment]]) -> Iterator[Fragment]:
        """The new fragments, without the rows that others have deleted since they were copied."""
        if one.update is not None:
            return
        lost: list[np.ndarray] = []
        before = 0
        for fragment in one.inputs:
            live = self._view.reader(fragment).all_live()
            if fragment.id in changed:
                taken = to_positions(newly_deleted(self._view, *changed[fragment.id]))
                at = np.searchsorted(live, taken) + before
                lost.append(at if one.order is None else one.order[at])
            before += len(live)
        positions = np.sort(np.concatenate(lost)) if lost else np.empty(0, np.int64)
        if not len(positions):
            yield from one.added
            return
        starts = np.cumsum([0, *(fragment.row_count for fragment in one.added)])
        bitmaps: list[BitMap64] = []
        for start, stop in pairwise(starts):
            low, high = np.searchsorted(positions, [start, stop])
            bitmaps.append(to_bitmap(positions[low:high] - start))
        path = f"{DELETES}/{self._new_id()}.dv"
        data, vectors = encode_deletes(path, bitmaps)
        self._view.store.put(path, data)
        for fragment, vector in zip(one.added, vectors, strict=True):
            if vector.cardinality < fragment.row_count:
                yield msgspec.structs.replace(fragment, deletes=vector if vector.cardinality else None)

    def abandon(self) -> None:
        """Remove what was written, as far as that works."""
        for one in self._done:
            discard(self._view.store, one.added)

    # --- rewriting ---

    def _rewrite(self, group: Group, inputs: tuple[Fragment, ...]) -> Rewritten:
        if group.work is Work.REGROUP:
            return Rewritten(group, inputs, update=self._regroup(inputs[0]))
        if group.work is Work.SORT:
            order = self._sorted(inputs)
            back = np.empty(len(order), np.int64)
            back[order] = np.arange(len(order))
            written = self._written(group, self._gathered(inputs, order), self._balls(inputs))
            return Rewritten(group, inputs, written, order=back)
        return Rewritten(group, inputs, self._written(group, self._in_order(inputs), self._balls(inputs)))

    def _balls(self, inputs: Sequence[Fragment]) -> BallCollector | None:
        """Balls are made where rows are sorted, and again where they were and stay in order.

        Of rows in any order they would be about as large as the whole, and of no use.
        """
        schema = self._view.snapshot.schema
        fields, order = vector_fields(schema.fields), [schema.field(one.column) for one in self._plan.order]
        if not order:
            had = [known for fragment in inputs for known in fragment.balls]
            fields = [field for field in fields if any(known.field_id == field.id for known in had)]
            before = {number for known in had for number in known.order}
            order = [field for field in schema.fields if field.id in before]
        return BallCollector(fields, order) if fields else None

    def _written(
        self, group: Group, batches: Iterator[pa.RecordBatch], balls: BallCollector | None
    ) -> tuple[Fragment, ...]:
        snapshot = self._view.snapshot
        keys = KeyCollector(key_fields(snapshot.schema, snapshot.primary_key)) if enforced(snapshot) else None
        fragments = write_fragments(
            self._view.store,
            regrouped(batches),
            [*snapshot.schema.fields, ROW_ID_FIELD, VERSION_FIELD],
            properties={**snapshot.properties, FRAGMENT_ROWS: str(group.fragment_rows)},
            new_id=self._new_id,
            keys=keys,
            balls=balls,
            progress=self._advance,
        )
        return tuple(fragments)

    def _advance(self, rows: int) -> None:
        self._rows_done += rows
        if self._progress:
            self._progress(self._rows_done, self._plan.rows)

    def _read_fields(self) -> list[Field]:
        return [*self._view.snapshot.schema.fields, ROW_ID_COLUMN, VERSION_COLUMN]

    def _piece_rows(self, fields: Sequence[Field]) -> int:
        width = sum(width_of(field.to_storage().type) for field in fields)
        return max(64, min(MORSEL_ROWS, self._memory // _AHEAD // max(width, 1)))

    def _in_order(self, inputs: Sequence[Fragment]) -> Iterator[pa.RecordBatch]:
        """The live rows of some fragments, one after the other."""
        fields = self._read_fields()
        step = self._piece_rows(fields)
        view = self._view

        def read(piece: _Piece) -> pa.RecordBatch:
            if isinstance(piece, _Run):
                return read_together(view, piece.fragments, view.snapshot.schema.fields)
            reader, start, stop = piece.reader, piece.start, piece.stop
            live = reader.live(start, stop)
            if live is None:
                return reader.read(fields, start, stop)
            if 2 * len(live) < stop - start:
                return reader.take(fields, live)
            return reader.read(fields, start, stop).take(pa.array(live - start))

        for batch in ordered_map(read, self._pieces(inputs, step), threads=default_threads(view.store)):
            yield _as_stored(batch, view)

    def _pieces(self, inputs: Sequence[Fragment], step: int) -> Iterator[_Piece]:
        """What is read at a time: a range of a fragment's rows, or a run of small fragments."""
        simple = simple_fragments(self._view)
        run: list[Fragment] = []
        rows = 0
        for fragment in inputs:
            small = simple is not None and 4 * fragment.row_count <= step and simple(fragment)
            if run and (not small or rows + fragment.row_count > min(step, CHUNK_ROWS)):
                yield _Run(tuple(run))
                run, rows = [], 0
            if small:
                run.append(fragment)
                rows += fragment.row_count
                continue
            self._check(fragment)
            reader = self._view.reader(fragment)
            for start in range(0, fragment.row_count, step):
                yield _Range(reader, start, min(start + step, fragment.row_count))
        if run:
            yield _Run(tuple(run))

    def _check(self, fragment: Fragment) -> None:
        """Refuse damaged files on local disk: what is copied gets a new checksum, and damage would never be found.

        Raises:
            CorruptDataError: names the file.
        """
        for file in fragment.files:
            if file.foreign or file.checksum is None or self._view.store.local_path("") is None:
                continue
            if source_checksum(self._view.files.source(file)) != file.checksum:
                raise CorruptDataError(
                    f"{self._view.store.uri}/{file.path} is damaged: its checksum is not the manifest's; nothing was "
                    "committed: restore the file, or see what verify says"
                )

    def _sorted(self, inputs: Sequence[Fragment]) -> np.ndarray:
        """The live rows of some fragments, counted through all of them, in the plan's order."""
        for fragment in inputs:
            self._check(fragment)
        schema = self._view.snapshot.schema
        fields = [schema.field(ordering.column) for ordering in self._plan.order]
        parts: list[pa.RecordBatch] = []
        held = 0
        for fragment in inputs:
            reader = self._view.reader(fragment)
            parts.append(reader.take(fields, reader.all_live()))
            held += parts[-1].nbytes + 8 * parts[-1].num_rows
            if held > self._memory:
                raise UnsupportedError(
                    f"the columns to sort by take more than the memory limit of {self._memory:,} bytes: raise "
                    "memory_limit, or sort by narrower columns"
                )
        keys = pa.Table.from_batches(parts)
        order = [
            (ordering.column, "descending" if ordering.descending else "ascending", "at_end")
            for ordering in self._plan.order
        ]
        found = pc.sort_indices(keys, sort_keys=order)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)

    def _gathered(self, inputs: Sequence[Fragment], order: np.ndarray) -> Iterator[pa.RecordBatch]:
        fields = self._read_fields()
        readers = [self._view.reader(fragment) for fragment in inputs]
        live = [reader.all_live() for reader in readers]
        starts = np.cumsum([0, *(len(part) for part in live)])
        step = self._piece_rows(fields)

        def gather(start: int) -> pa.RecordBatch:
            rows = order[start : start + step]
            sources = np.searchsorted(starts, rows, "right") - 1
            by_source = np.argsort(sources, kind="stable")
            parts = []
            for source in np.unique(sources):
                mine = rows[by_source][sources[by_source] == source] - starts[source]
                parts.append(readers[source].take(fields, live[source][mine]))
            back = np.empty(len(rows), np.int64)
            back[by_source] = np.arange(len(rows))
            return pa.Table.from_batches(parts).combine_chunks().take(pa.array(back)).to_batches()[0]

        starts_of = range(0, len(order), step)
        for batch in ordered_map(gather, starts_of, threads=default_threads(self._view.store)):
            yield _as_stored(batch, self._view)

    def _regroup(self, fragment: Fragment) -> FragmentUpdate:
        """All columns of a fragment that stays, in the files that the table's properties ask for today."""
        self._check(fragment)
        snapshot, reader = self._view.snapshot, self._view.reader(fragment)
        held = {number for file in fragment.files for number in file.field_ids}
        fields = [field for field in snapshot.schema.fields if field.id in held]
        explicit = [VERSION_FIELD, *([ROW_ID_FIELD] if ROW_ID_FIELD_ID in held else [])]
        computed = [VERSION_COLUMN, *([ROW_ID_COLUMN] if ROW_ID_FIELD_ID in held else [])]
        groups = column_groups([*fields, *explicit], snapshot.properties, unsupported)
        step = self._piece_rows(fields)
        with ThreadPoolExecutor(max(1, min(4, len(groups)))) as pool:
            writer = FragmentWriter(self._view.store, groups, new_id=self._new_id, pool=pool)
            try:
                for start in range(0, fragment.row_count, step):
                    stop = min(start + step, fragment.row_count)
                    writer.write(reader.read([*fields, *computed], start, stop))
                    self._advance(stop - start)
                written = writer.close()
            except BaseException as e:
                writer.abort(e)
                raise
        self._view.store.sync_folders([file.path for file in written.files])
        return FragmentUpdate(
            fragment.id,
            files=written.files,
            bounds=written.bounds,
            balls=tuple(_moved(fragment, written.files)),
        )


def _moved(fragment: Fragment, files: Sequence[DataFile]) -> Iterator[BallSegment]:
    """A fragment's balls, now that other files hold the same values in the same order."""
    for file in files:
        for number in file.field_ids:
            if (known := fragment.balls_of(number)) is not None:
                yield msgspec.structs.replace(known, source=file.path)


def _as_stored(batch: pa.RecordBatch, view: View) -> pa.RecordBatch:
    """Rows as read, with their ids and versions, as they are written."""
    fields = [*view.snapshot.schema.fields, ROW_ID_FIELD, VERSION_FIELD]
    return pa.RecordBatch.from_arrays(
        batch.columns, schema=pa.schema([field.to_storage() for field in fields])
    )
