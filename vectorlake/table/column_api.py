"""The part of a table's face that is about its columns: a few lines each over the modules that do the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from vectorlake.errors import ConflictError, InvalidInputError
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan import evolution
from vectorlake.plan.commit import Delta
from vectorlake.plan.conflict import Effects, metadata_effects
from vectorlake.plan.index_changes import check_retyped
from vectorlake.plan.keys import check_key
from vectorlake.plan.scan import COMPUTED
from vectorlake.schema import Schema
from vectorlake.table import columns as column_work
from vectorlake.table.column_change import ColumnChange
from vectorlake.table.handle import Handle
from vectorlake.table.keys import key_fields
from vectorlake.tracing import traced


class ColumnApi(Handle):
    """What `Table` can do with columns."""

    @traced
    def add_column(
        self,
        name: str,
        definition: column_work.BatchFunction | str | None = None,
        *,
        type: pa.DataType | pa.Field | None = None,
        inputs: Sequence[str] | None = None,
        default: object = None,
        nullable: bool = True,
        batch_size: int = column_work.BATCH_ROWS,
        progress: column_work.Progress | None = None,
    ) -> Snapshot:
        """Add a column: empty or with a default (no file is touched), or computed (only its own files are written).

        Args:
            name: the column's name; a path such as `"address.zip"` adds a child to a struct (without a definition).
            definition: a function over record batches of `inputs` that returns as many values (an Arrow or numpy array,
                of rank 2 for vectors, or a list), or an SQL expression (`"price * 2"`).
            type: an Arrow type or one of `vectorlake.vector(…)` and its kin; may be left out for an SQL expression.
            inputs: the columns that the function is given; all by default.
            default: what rows read as that have no value of their own, those written before this included.
            nullable: whether the column may hold nulls.
            batch_size: rows a call of the function.
            progress: called with (rows done, rows in all).

        One atomic commit, after which the column is there with all its values; after an error or Ctrl-C there is no
        trace of it but orphaned files. Rows that others append meanwhile read as the default or null.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: the function returned the wrong number or type of values; names the row ids.
        """
        self._check_writable()
        if definition is None:
            return self._add_empty_column(name, type, default, nullable)
        function, used = column_work.as_function(self._view, definition)
        kind = self._type_of(definition) if type is None else type
        task = column_work.new_column_task(
            self._view,
            name,
            kind,
            function,
            inputs=used if used is not None else inputs,
            default=default,
            nullable=nullable,
            batch_rows=_positive("batch_size", batch_size),
        )
        change = ColumnChange.computed(self._view, task, new_id=self._context.new_id, progress=progress)
        return self._commit_new_column(change, kind, default=default, nullable=nullable)

    def _commit_new_column(
        self, change: ColumnChange, kind: pa.DataType | pa.Field, *, default: object, nullable: bool
    ) -> Snapshot:
        name = change.field.name

        def build(head: Snapshot) -> Delta:
            schema, next_id = evolution.add_field(
                head.schema, name, kind, next_id=head.next_field_id, default=default
            )
            added = schema.field(name)
            fitted = change.on(head, added)
            if not nullable:
                if default is None and not fitted.complete:
                    raise ConflictError(
                        f"rows were added or changed while the non-null column {name!r} was computed, without its value; "
                        "nothing was written: refresh and retry, or give it a default"
                    )
                added = msgspec.structs.replace(added, nullable=False)
                schema = msgspec.structs.replace(schema, fields=(*schema.fields[:-1], added))
            return Delta(
                "add-column",
                updates=fitted.updates,
                schema=schema,
                next_field_id=next_id,
                summary={"column": name},
            )

        return self._commit_metadata(Effects(names=frozenset({name})), build)

    def _add_empty_column(
        self, name: str, kind: pa.DataType | pa.Field | None, default: object, nullable: bool
    ) -> Snapshot:
        if kind is None:
            raise InvalidInputError(
                f"column {name!r} needs a type, such as vectorlake.vector(384) or pyarrow.string()"
            )

        def build(head: Snapshot) -> Delta:
            schema, next_id = evolution.add_field(
                head.schema, name, kind, next_id=head.next_field_id, default=default, nullable=nullable
            )
            return Delta("add-column", schema=schema, next_field_id=next_id, summary={"column": name})

        return self._commit_metadata(Effects(names=frozenset({name})), build)

    def _type_of(self, definition: column_work.BatchFunction | str) -> pa.DataType:
        if callable(definition):
            raise InvalidInputError(
                "a column computed by a function needs type=, such as vectorlake.vector(384)"
            )
        from vectorlake.expr import parse_expression

        fields = [*self.snapshot.schema.fields, *COMPUTED.values()]
        return parse_expression(definition, pa.schema([field.to_storage() for field in fields])).type

    @traced
    def backfill_column(
        self,
        name: str,
        definition: column_work.BatchFunction | str,
        *,
        inputs: Sequence[str] | None = None,
        rows: str | column_work.Rows = column_work.Rows.MISSING,
        batch_size: int = column_work.BATCH_ROWS,
        progress: column_work.Progress | None = None,
    ) -> Snapshot:
        """Compute a column that exists already: for the rows where it is null (`rows="missing"`), or for all.

        Writes only that column's files, and only for fragments that need it: after an append of one per cent of the
        rows it costs about one per cent. Arguments, atomicity and errors as for `add_column`.
        """
        self._check_writable()
        function, used = column_work.as_function(self._view, definition)
        task = column_work.existing_column_task(
            self._view,
            name,
            function,
            inputs=used if used is not None else inputs,
            rows=rows,
            batch_rows=_positive("batch_size", batch_size),
        )
        return self._commit_backfill(
            ColumnChange.computed(self._view, task, new_id=self._context.new_id, progress=progress)
        )

    def _commit_backfill(self, change: ColumnChange) -> Snapshot:
        field = change.field
        if not change.updates:
            return self.snapshot

        def build(head: Snapshot) -> Delta:
            updates = change.on(head, field).updates
            return Delta("backfill-column", updates=updates, summary={"column": field.name})

        written = {update.fragment_id: frozenset({field.id}) for update in change.updates}
        return self._commit_metadata(Effects(written=written), build)

    @traced
    def drop_column(self, name: str) -> Snapshot:
        """Drop a column, or a struct's child by path; no file is touched, and earlier versions still have it.

        Indexes over the column go with it.
        """
        return self._evolve(
            "drop-column", name, lambda s, h: evolution.drop_field(s, name, protected=h.primary_key)
        )

    @traced
    def rename_column(self, name: str, new_name: str) -> Snapshot:
        """Give a column, or a nested field by path, another name; no file is touched."""
        return self._evolve(
            "rename-column", name, lambda schema, _: evolution.rename_field(schema, name, new_name)
        )

    @traced
    def alter_column(
        self, name: str, *, type: pa.DataType | None = None, nullable: bool | None = None
    ) -> Snapshot:
        """Widen a column's type, or allow nulls in it; no file is touched, older files are cast when read.

        Raises:
            InvalidInputError: a type that could lose something, or forbidding nulls (rows may have them already); a column
                with an index, which holds its values as they were: drop that first.
        """
        if type is None and nullable is None:
            raise InvalidInputError("say what to alter: type=… or nullable=True")
        if nullable is False:
            raise InvalidInputError(
                f"column {name!r} can't forbid nulls afterwards: rows may hold them already"
            )

        def change(schema: Schema, head: Snapshot) -> Schema:
            schema = evolution.widen_field(schema, name, type) if type is not None else schema
            key = key_fields(schema, head.primary_key)
            check_key(key)
            if nullable and name in [field.name for field in key]:
                raise InvalidInputError(f"column {name!r} is in the primary key and can't allow nulls")
            return evolution.set_nullable(schema, name) if nullable else schema

        return self._evolve("alter-column", name, change)

    @traced
    def reorder_columns(self, names: Sequence[str]) -> Snapshot:
        """Put columns first, in this order; the others follow as they are."""
        return self._evolve(
            "reorder-columns", ", ".join(names), lambda schema, _: evolution.reorder(schema, list(names))
        )

    def _evolve(self, operation: str, name: str, change: Callable[[Schema, Snapshot], Schema]) -> Snapshot:
        base = self.snapshot
        wanted = msgspec.structs.replace(base, schema=change(base.schema, base))
        check_retyped(base, wanted.schema)

        def build(head: Snapshot) -> Delta:
            schema = change(head.schema, head)
            try:
                check_retyped(head, schema)
            except InvalidInputError as e:
                raise ConflictError(f"another writer has indexed the column meanwhile: {e}") from e
            return Delta(operation, schema=schema, summary={"column": name})

        return self._commit_metadata(metadata_effects(base, wanted), build)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{name} must be a positive integer, not {value!r}")
    return value
