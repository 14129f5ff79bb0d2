"""Merge rows into a table: match them by key, and update, delete, insert or leave what matches or does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap64

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import to_bitmap
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.merge import (
    SOURCE,
    TARGET,
    BoundClause,
    Change,
    Clause,
    Mode,
    Wanted,
    bind_clause,
    first_fitting,
    needed,
)
from vectorlake.plan.scan import fields_by_name
from vectorlake.schema import Field, Schema
from vectorlake.table.commit import Build
from vectorlake.table.deletes import matching_positions
from vectorlake.table.differ import difference
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.images import CHUNK_ROWS, Hits, images, with_row_ids, write_images
from vectorlake.table.ingest import as_reader, check_columns, conforming
from vectorlake.table.keys import GivenKeys, KeyGuard, KeyMatches, enforced, find_keys, key_fields
from vectorlake.table.row_change import Prepared, RowChange, in_place, positions_of
from vectorlake.table.spool import Spooled
from vectorlake.table.view import View
from vectorlake.tracing import span


@dataclass(frozen=True)
class Merge:
    """A merge as a builder: clauses are added one by one, and `execute()` commits it (see `Table.merge`).

    The first clause that fits a row decides; a row that no clause fits stays as it is. Conditions and expressions are
    SQL over `source.<column>` (the rows given) and `target.<column>` (the table's row).
    """

    data: object
    on: tuple[str, ...]
    view: View
    commit: Callable[[Build], Snapshot]
    new_id: NewId
    name: str = "merge"
    mode: Mode = Mode.AUTO
    matched: tuple[Clause, ...] = ()
    unmatched: tuple[Clause, ...] = ()
    by_source: tuple[str | None, ...] = ()

    def when_matched_update(self, columns: Wanted = None, *, condition: str | None = None) -> Merge:
        """Set columns of rows that match.

        Args:
            columns: names to take from the rows given; or SQL expressions or values by name, such as
                `{"price": "source.price * 2", "seen": "target.seen + 1"}`; None for all columns that the rows have.
            condition: only where this is true.
        """
        return replace(self, matched=(*self.matched, Clause(Change.UPDATE, columns, condition)))

    def when_matched_delete(self, *, condition: str | None = None) -> Merge:
        """Delete rows that match."""
        return replace(self, matched=(*self.matched, Clause(Change.DELETE, None, condition)))

    def when_not_matched_insert(self, *, condition: str | None = None) -> Merge:
        """Insert the rows given that match no row of the table (the condition reads `source` alone)."""
        return replace(self, unmatched=(*self.unmatched, Clause(Change.INSERT, None, condition)))

    def when_not_matched_by_source_delete(self, *, condition: str | None = None) -> Merge:
        """Delete the table's rows that match none of the rows given; the condition names the table's columns plainly."""
        return replace(self, by_source=(*self.by_source, condition))

    def execute(self) -> Snapshot:
        """Do it: one atomic commit, or none if there is nothing to do. Returns the newest snapshot.

        Evaluated on the table's newest version. If others commit meanwhile rows that meet it, it is evaluated again.

        Raises:
            InvalidInputError: no clause; a key twice or null in the data; unknown columns; a change of key columns.
            AlreadyExistsError: a row to insert has the primary key of another row (only if matched by other columns).
            ConflictError: others changed the table's columns such that the merge no longer fits.
        """
        if not (self.matched or self.unmatched or self.by_source):
            raise InvalidInputError(
                "a merge without clauses does nothing: add when_matched_update() or another clause"
            )
        with span("merge", table=self.view.store.uri, version=self.view.snapshot.version):
            operation = _Merging(
                self, _Source(self.data, self._on(), self.view.snapshot.schema, self.partial)
            )
            operation.bind(self.view.snapshot)
            return self.commit(RowChange(operation, self.view, new_id=self.new_id))

    @property
    def partial(self) -> bool:
        """Whether the data may lack columns that a new row would need."""
        return not self.unmatched

    def _on(self) -> list[Field]:
        schema = self.view.snapshot.schema
        names = self.on or tuple(f.name for f in key_fields(schema, self.view.snapshot.primary_key))
        if not names:
            raise InvalidInputError(
                "the table has no primary key: say by which columns rows match, such as on=['id']"
            )
        if len(set(names)) != len(names):
            raise InvalidInputError(f"a column occurs twice in on={list(names)}")
        return [schema.field(name) for name in names]


class _Source:
    """The rows given: conformed to the table's columns, kept to be read again, without two of one key."""

    def __init__(self, data: object, on: Sequence[Field], schema: Schema, partial: bool) -> None:
        reader = as_reader(data)
        check_columns(reader.schema, _lenient(schema) if partial else schema)
        names = reader.schema.names
        for field in on:
            if field.name not in names:
                raise InvalidInputError(f"rows are matched by column {field.name!r}, which the data lacks")
        self.fields = [field for field in schema.fields if field.name in names]
        self.schema = pa.schema([field.to_storage() for field in self.fields])
        self.on = list(on)
        self._spooled = Spooled(conforming(reader, self.fields), self.schema)
        self.table = self._spooled.table
        columns = [self.table[field.name] for field in on]
        for field, column in zip(on, columns, strict=True):
            if column.null_count:
                row = pc.index(column.is_null(), True).as_py()
                raise InvalidInputError(
                    f"column {field.name!r} identifies rows and must not be null, but row {row} is; nothing was written"
                )
        self.keys = GivenKeys(columns)
        self._check_distinct()

    def _check_distinct(self) -> None:
        order = np.argsort(self.keys.hashes, kind="stable")
        ordered = self.keys.hashes[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if not len(again):
            return
        suspects = np.unique(np.concatenate([order[again], order[again + 1]]))
        names = [field.name for field in self.on]
        values = pa.table(dict(zip(names, self.keys.take(suspects), strict=True)))
        counted = values.group_by(names).aggregate([([], "count_all")])
        double = counted.filter(pc.greater(counted["count_all"], 1))
        if double.num_rows:
            shown = double.select(names).slice(0, 3).to_pylist()
            raise InvalidInputError(
                f"{double.num_rows} keys occur more than once in the data, such as {shown}: a row would match twice; "
                "nothing was written: keep one row of each"
            )

    def take(self, names: Sequence[str], rows: np.ndarray) -> list[pa.Array]:
        """Columns of some rows."""
        chosen = self.table.select(list(names)).take(pa.array(rows))
        return [_plain(column) for column in chosen.columns]


def _plain(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def _lenient(schema: Schema) -> Schema:
    fields = tuple(msgspec.structs.replace(field, nullable=True) for field in schema.fields)
    return msgspec.structs.replace(schema, fields=fields)


class _Merging:
    """A merge as an operation on any snapshot."""

    def __init__(self, merge: Merge, source: _Source) -> None:
        self._merge = merge
        self._source = source
        self.name = merge.name

    def bind(self, snapshot: Snapshot) -> tuple[list[BoundClause], list[BoundClause]]:
        """The clauses over a snapshot's columns; raises for what is wrong with them."""
        key = frozenset(snapshot.primary_key)
        on = frozenset(field.id for field in self._source.on)
        clauses = (*self._merge.matched, *self._merge.unmatched)
        for name in self._source.schema.names:
            snapshot.schema.field(name)
        bound = [
            bind_clause(clause, snapshot.schema, self._source.schema, key=key, on=on) for clause in clauses
        ]
        return bound[: len(self._merge.matched)], bound[len(self._merge.matched) :]

    def prepare(self, view: View) -> Prepared:
        matched, unmatched = self.bind(view.snapshot)
        found = list(find_keys(view, self._source.keys, fields=self._on(view)))
        evaluation = _Evaluation(view, self._source, matched)
        hits, deleted, unchanged = evaluation.decide(found)
        removed = self._not_matched_by_source(view, found)
        for fragment, rows in removed.items():
            deleted[fragment] = deleted.get(fragment, BitMap64()) | rows
        inserts = self._inserts(found, unmatched)
        updated = sum(len(hit.positions) for hit in hits)
        gone = sum(len(rows) for rows in deleted.values())
        summary = {
            key: count
            for key, count in (
                ("updated_rows", updated),
                ("added_rows", len(inserts)),
                ("deleted_rows", gone),
                ("unchanged_rows", unchanged),
            )
            if count
        }
        if not (updated or gone or len(inserts)):
            return Prepared(view)
        fields = list({field.id: field for clause in matched for field, _ in clause.values}.values())
        files = in_place(
            view, hits, fields, evaluation.values, mode=self._merge.mode, new_id=self._merge.new_id
        )
        read = evaluation.read(copied=files is None and bool(hits))
        batches = self._batches(view, [] if files is not None else hits, evaluation, inserts)
        written = write_images(view, batches, new_id=self._merge.new_id)
        if len(inserts) and written.hashes is not None:
            self._guard(view, written.fragments, written.hashes, len(inserts))
        taken = dict(deleted)
        if files is None:
            for fragment, rows in positions_of(hits).items():
                taken[fragment] = taken.get(fragment, BitMap64()) | rows
        return Prepared(
            view,
            taken=taken,
            added=written.fragments,
            files=files or (),
            hit={} if files is None else positions_of(hits),
            read=read if files is None else read | {field.id for field in fields},
            seen=_without(
                {match.fragment_id: to_bitmap(match.positions) for match in found},
                positions_of(hits),
                deleted,
            ),
            summary=summary,
        )

    def holds(self, prepared: Prepared, head: View) -> bool:
        """Whether no row with any of the keys came since: one that was only moved is no news."""
        base = prepared.view.snapshot
        between = difference(head.log, base, head.snapshot)
        fragments = [*between.added, *(after for _, after in between.changed)]
        for found in find_keys(head, self._source.keys, fragments=fragments, fields=self._on(head)):
            newer = found.reader.versions_at(found.positions) > base.version
            if newer.any() or found.fragment_id in {
                f.id for f in between.added if f.id < base.next_fragment_id
            }:
                return False
            if any(
                len(rows_back(head, before, after) & to_bitmap(found.positions))
                for before, after in between.changed
                if after.id == found.fragment_id
            ):
                return False
        return True

    def _on(self, view: View) -> list[Field]:
        by_id = {field.id: field for field in view.snapshot.schema.fields}
        return [by_id[field.id] for field in self._source.on]

    def _not_matched_by_source(self, view: View, found: Sequence[KeyMatches]) -> dict[int, BitMap64]:
        removed: dict[int, BitMap64] = {}
        for condition in self._merge.by_source:
            for fragment, rows in matching_positions(view, view.bind(condition)).items():
                removed[fragment] = removed.get(fragment, BitMap64()) | rows
        if removed:
            for match in found:
                if match.fragment_id in removed:
                    removed[match.fragment_id] -= to_bitmap(match.positions)
        return {fragment: rows for fragment, rows in removed.items() if rows}

    def _inserts(self, found: Sequence[KeyMatches], clauses: Sequence[BoundClause]) -> np.ndarray:
        """The rows of the source to insert."""
        if not clauses:
            return np.empty(0, np.int64)
        missing = np.ones(self._source.table.num_rows, bool)
        for match in found:
            missing[match.rows] = False
        rows = np.flatnonzero(missing)
        keep = np.zeros(len(rows), bool)
        for clause in clauses:
            if clause.condition is None:
                return rows
            for start in range(0, len(rows), CHUNK_ROWS):
                part = rows[start : start + CHUNK_ROWS]
                batch = _structs(self._source, None, [clause.condition], len(part), part)
                keep[start : start + CHUNK_ROWS] |= np.asarray(clause.condition.mask(batch), bool)
        return rows[keep]

    def _batches(
        self, view: View, hits: Sequence[Hits], evaluation: _Evaluation, inserts: np.ndarray
    ) -> Iterator[pa.RecordBatch]:
        yield from images(view, hits, evaluation.values)
        fields = list(view.snapshot.schema.fields)
        names = self._source.schema.names
        for start in range(0, len(inserts), CHUNK_ROWS):
            columns = self._source.take(names, inserts[start : start + CHUNK_ROWS])
            yield with_row_ids(dict(zip(names, columns, strict=True)), fields, None)

    def _guard(self, view: View, fragments: Sequence[Fragment], hashes: np.ndarray, inserts: int) -> None:
        """Where rows are matched by other columns than the primary key, what is inserted may still have a taken key."""
        snapshot = view.snapshot
        key = key_fields(snapshot.schema, snapshot.primary_key)
        if {field.id for field in key} == {field.id for field in self._source.on} or not enforced(snapshot):
            return
        rows = np.arange(len(hashes) - inserts, len(hashes))
        guard = KeyGuard([view.reader(fragment) for fragment in fragments], key, hashes[rows], rows=rows)
        guard.check_distinct()
        guard.check(view)


def _without(rows: Mapping[int, BitMap64], *others: Mapping[int, BitMap64]) -> dict[int, BitMap64]:
    """Rows that are in none of the others."""
    left = dict(rows)
    for other in others:
        for fragment in left.keys() & other.keys():
            left[fragment] = left[fragment] - other[fragment]
    return {fragment: positions for fragment, positions in left.items() if positions}


def rows_back(view: View, before: Fragment, after: Fragment) -> BitMap64:
    """Positions that were deleted in one state of a fragment and are live in a later one (after a restore)."""
    if before.deletes is None or before.deletes == after.deletes:
        return BitMap64()
    now = view.load_deletes(after.deletes) if after.deletes else BitMap64()
    return view.load_deletes(before.deletes) - now


class _Evaluation:
    """The clauses for matched rows, evaluated over pairs of rows."""

    def __init__(self, view: View, source: _Source, clauses: Sequence[BoundClause]) -> None:
        self._source = source
        self._clauses = clauses
        self._fields = fields_by_name(view.snapshot.schema)
        self._every = frozenset(field.id for field in view.snapshot.schema.fields)

    def read(self, *, copied: bool) -> frozenset[int]:
        """Fields of the table whose values went into the outcome."""
        expressions = [expression for clause in self._clauses for expression in clause.expressions]
        names = needed(expressions, TARGET)
        plain = frozenset(self._fields[name].id for name in names)
        given = frozenset(field.id for field in self._source.fields)
        return plain | (self._every - given if copied else frozenset())

    def decide(self, found: Sequence[KeyMatches]) -> tuple[list[Hits], dict[int, BitMap64], int]:
        """Rows to update, rows to delete, and how many that match stay."""
        hits: list[Hits] = []
        deleted: dict[int, BitMap64] = {}
        unchanged = 0
        for match in found:
            order = np.argsort(match.positions, kind="stable")
            positions, rows = match.positions[order], match.rows[order]
            clause = self._choose(match, positions, rows)
            unchanged += int((clause < 0).sum())
            updates = np.zeros(len(clause), bool)
            for index, bound in enumerate(self._clauses):
                mine = clause == index
                if bound.change is Change.DELETE and mine.any():
                    gone = to_bitmap(positions[mine])
                    deleted[match.fragment_id] = deleted.get(match.fragment_id, BitMap64()) | gone
                elif bound.values:
                    updates |= mine
                else:
                    unchanged += int(mine.sum())
            if updates.any():
                hits.append(Hits(match.reader, positions[updates], rows[updates], clause[updates]))
        return hits, deleted, unchanged

    def _choose(self, match: KeyMatches, positions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not any(clause.condition is not None for clause in self._clauses):
            return np.full(len(positions), 0 if self._clauses else -1, np.int8)
        chosen = []
        for start in range(0, len(positions), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            count = len(positions[part])
            conditions = [clause.condition for clause in self._clauses if clause.condition is not None]
            batch = _structs(
                self._source, (match.reader, positions[part], self._fields), conditions, count, rows[part]
            )
            masks = [
                np.ones(count, bool)
                if clause.condition is None
                else np.asarray(clause.condition.mask(batch), bool)
                for clause in self._clauses
            ]
            chosen.append(first_fitting(masks, count))
        return np.concatenate(chosen)

    def values(self, hits: Hits) -> Mapping[str, tuple[np.ndarray, pa.Array]]:
        """New values of some rows, by column; a column that not all of the rows' clauses set is given for those that do."""
        parts: dict[str, list[tuple[np.ndarray, pa.Array]]] = {}
        for index in np.unique(hits.clause):
            bound = self._clauses[index]
            at = np.flatnonzero(hits.clause == index)
            target = (hits.reader, hits.positions[at], self._fields)
            batch = _structs(self._source, target, bound.expressions, len(at), hits.rows[at])
            for field, expression in bound.values:
                value = expression.evaluate(batch)
                wanted = field.to_storage().type
                parts.setdefault(field.name, []).append(
                    (at, value if value.type == wanted else value.cast(wanted))
                )
        return {
            name: given[0]
            if len(given) == 1
            else (np.concatenate([at for at, _ in given]), pa.concat_arrays([value for _, value in given]))
            for name, given in parts.items()
        }


def _structs(
    source: _Source,
    target: tuple[FragmentReader, np.ndarray, Mapping[str, Field]] | None,
    expressions: Sequence[Expr],
    count: int,
    rows: np.ndarray,
) -> pa.RecordBatch:
    """Pairs of rows as the structs `source` and `target`, with the columns that some expressions read."""
    arrays: dict[str, pa.Array] = {}
    names = needed(expressions, SOURCE)
    if names:
        columns = source.take(names, rows)
        arrays[SOURCE] = pa.StructArray.from_arrays(columns, fields=[source.schema.field(n) for n in names])
    if target is not None and (names := needed(expressions, TARGET)):
        reader, positions, known = target
        fields = [known[name] for name in names]
        batch = reader.take(fields, positions)
        arrays[TARGET] = pa.StructArray.from_arrays(batch.columns, fields=list(batch.schema))
    if not arrays:
        return pa.RecordBatch.from_arrays([pa.nulls(count)], names=["__vl_rows"])
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
