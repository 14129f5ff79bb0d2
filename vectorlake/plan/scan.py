"""Which fragments a scan has to open: manifests and fragments pruned by the bounds in the metadata. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from vectorlake.expr import Bounds, Expr, prune_mask
from vectorlake.metadata.literals import literal_from_json
from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import ManifestRef
from vectorlake.schema import LAST_UPDATED_VERSION, ROW_ID, Field, ScalarType, Schema, type_to_arrow

ROW_ID_COLUMN: Final = Field(-1, ROW_ID, ScalarType("int64"), nullable=False)
VERSION_COLUMN: Final = Field(-2, LAST_UPDATED_VERSION, ScalarType("int64"), nullable=False)
COMPUTED: Final[Mapping[str, Field]] = {ROW_ID: ROW_ID_COLUMN, LAST_UPDATED_VERSION: VERSION_COLUMN}
"""Columns that every table has without storing them; negative ids mark them."""


def fields_by_name(schema: Schema) -> dict[str, Field]:
    """All columns that a scan can name: the schema's and the computed ones."""
    return {**{field.name: field for field in schema.fields}, **COMPUTED}


def manifest_may_match(ref: ManifestRef, predicate: Expr | None, schema: Schema) -> bool:
    """Whether any fragment of a manifest may hold a match, by the bounds in the snapshot alone."""
    if predicate is None:
        return True
    bounds: dict[str, Bounds] = {}
    for name in predicate.columns():
        field = next((f for f in schema.fields if f.name == name), None)
        known = ref.bounds.get(str(field.id)) if field else None
        if field is None or known is None:
            continue
        kind = type_to_arrow(field.type, storage=True)
        try:
            low, high = (pa.array([literal_from_json(value, kind)], kind) for value in known)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError):
            continue  # bounds from before a widening may not decode as the new type: unknown then
        bounds[name] = Bounds(
            min=low, max=high, null_count=None, nan_count=None, row_count=np.array([ref.rows])
        )
    return not bounds or bool(prune_mask(predicate, bounds, 1)[0])


def surviving(manifest: Manifest, predicate: Expr | None, schema: Schema) -> np.ndarray:
    """Indices of the manifest's fragments that may hold matches (int64, ascending)."""
    count = len(manifest)
    if predicate is None or not count:
        return np.arange(count)
    bounds: dict[str, Bounds] = {}
    rows = manifest.row_counts
    for name in predicate.columns():
        field = next((f for f in schema.fields if f.name == name), None)
        if field is None:
            continue
        kind = type_to_arrow(field.type, storage=True)
        low, high = (_bound(manifest, side, field.id, kind) for side in ("min", "max"))
        nulls, nans = manifest.bound("nulls", field.id), manifest.bound("nans", field.id)
        if low is None and high is None and nulls is None:
            continue
        unknown = pa.nulls(count, kind)
        bounds[name] = Bounds(
            min=low if low is not None else unknown,
            max=high if high is not None else unknown,
            null_count=None if nulls is None else nulls.combine_chunks(),
            nan_count=None if nans is None else nans.combine_chunks(),
            row_count=rows,
        )
    return np.flatnonzero(prune_mask(predicate, bounds, count)) if bounds else np.arange(count)


def _bound(manifest: Manifest, side: str, field_id: int, kind: pa.DataType) -> pa.Array | None:
    column = manifest.bound(side, field_id)
    if column is None:
        return None
    try:
        column = column if column.type == kind else column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
