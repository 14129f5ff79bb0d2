"""Set columns of the rows for which a filter is true, by expressions over the rows' own values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from vectorlake.expr import Expr
from vectorlake.ids import NewId
from vectorlake.metadata.deletion import to_positions
from vectorlake.plan.merge import Mode, bind_values
from vectorlake.plan.scan import fields_by_name
from vectorlake.schema import Field
from vectorlake.table.deletes import matching_positions
from vectorlake.table.images import Hits, images, write_images
from vectorlake.table.row_change import Prepared, in_place, positions_of
from vectorlake.table.view import View


class Update:
    """`UPDATE … SET … WHERE …` (see `Table.update`)."""

    name = "update"

    def __init__(
        self,
        assignments: Mapping[str, object],
        where: str | Expr | object | None,
        *,
        mode: Mode,
        new_id: NewId,
    ) -> None:
        self._assignments = assignments
        self._where = where
        self._mode = mode
        self._new_id = new_id

    def prepare(self, view: View) -> Prepared:
        snapshot = view.snapshot
        known = fields_by_name(snapshot.schema)
        scope = pa.schema([field.to_storage() for field in known.values()])
        values = bind_values(self._assignments, snapshot.schema, scope, key=frozenset(snapshot.primary_key))
        predicate = view.bind(self._where)
        read = frozenset(
            known[name].id
            for expression in (*(value for _, value in values), *((predicate,) if predicate else ()))
            for name in expression.columns()
            if known[name].id >= 0
        )
        found = matching_positions(view, predicate)
        by_id = {reader.fragment.id: reader for reader in view.readers(predicate)} if found else {}
        empty = np.empty(0, np.int64)
        hits = [
            Hits(by_id[fragment], at := to_positions(rows), empty, np.zeros(len(at), np.int8))
            for fragment, rows in found.items()
        ]
        count = sum(len(hit.positions) for hit in hits)
        summary = {"updated_rows": count}
        compute = _Values(values, known)
        fields = [field for field, _ in values]
        files = in_place(view, hits, fields, compute, mode=self._mode, new_id=self._new_id)
        changed = frozenset(field.id for field in fields)
        if files is not None:
            return Prepared(view, files=files, hit=positions_of(hits), read=read | changed, summary=summary)
        if not hits:
            return Prepared(view)
        written = write_images(view, images(view, hits, compute), new_id=self._new_id)
        every = frozenset(field.id for field in snapshot.schema.fields)
        return Prepared(view, taken=positions_of(hits), added=written.fragments, read=every, summary=summary)

    def holds(self, prepared: Prepared, head: View) -> bool:
        return True


class _Values:
    """The expressions' values for some rows."""

    def __init__(self, values: tuple[tuple[Field, Expr], ...], known: Mapping[str, Field]) -> None:
        self._values = values
        names = sorted({name for _, expression in values for name in expression.columns()})
        self._inputs = [known[name] for name in names]

    def __call__(self, hits: Hits) -> Mapping[str, tuple[np.ndarray, pa.Array]]:
        batch = hits.reader.take(self._inputs, hits.positions)
        everywhere = np.arange(len(hits.positions))
        return {field.name: (everywhere, value.evaluate(batch)) for field, value in self._values}
