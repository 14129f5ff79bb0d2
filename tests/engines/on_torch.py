"""PyTorch: rows as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine

import vectorlake as vl


@engine
class Torch(Engine):
    name = "torch"
    needs = ("torch",)
    lacks: ClassVar = {
        Capability.SQL: "PyTorch has no SQL",
        Capability.SQL_WRITE: "PyTorch has no SQL",
        Capability.WRITE: "a model's batches are no rows: Table.append takes what a tensor's numpy() gives",
        Capability.METADATA: "they are Arrow tables, and hold few numbers",
        Capability.NULL_QUERIES: "a tensor has no value for null",
    }

    unheld: ClassVar = {
        "map": "maps become lists of pairs, and Arrow makes no map of those with nulls among them"
    }

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        """Columns with nulls are read as the error says: without those rows. Their row ids tell which ones."""
        pinned = table if version is None else table.at(version)
        scan = pinned.scan(columns, filter, with_row_id=with_row_id)
        ids = [row_id for (row_id,) in _rows(pinned, ["_row_id"], filter)]
        found = []
        for field in scan.schema:
            try:
                values = [value for (value,) in _rows(pinned, [field.name], filter)]
            except vl.InvalidInputError as e:
                if f"filter='{field.name} IS NOT NULL'" not in str(e):
                    raise
                there = f"{field.name} IS NOT NULL" + ("" if filter is None else f" AND ({filter})")
                known = dict(_rows(pinned, ["_row_id", field.name], there))
                values = [known.get(row_id) for row_id in ids]
            kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
            found.append(pa.array(values, kind))
        return pa.Table.from_arrays(found, names=scan.schema.names)

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        import torch

        return table.knn(torch.tensor(queries.to_pylist()), k=k, **options)


def _rows(table: vl.Table, columns: Sequence[str], filter: str | None) -> list[tuple[Any, ...]]:
    """Some columns in batches of a DataLoader, row by row."""
    import vectorlake_torch
    from torch.utils.data import DataLoader

    stream = vectorlake_torch.IterableTable(table, batch_size=7, columns=columns, filter=filter, part_rows=16)
    rows: list[tuple[Any, ...]] = []
    for batch in DataLoader(stream, batch_size=None):
        plain = (column if isinstance(column, list) else column.numpy() for column in batch.values())
        rows.extend(zip(*plain, strict=True))
    return rows
