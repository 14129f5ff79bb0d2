"""Which columns a foreign Parquet file has, by the field ids in its footer or by the source's name mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from vectorlake.metadata.fragment import Layout
from vectorlake.schema import Field, FixedListType, ListType, MapType, StructType, Type, type_from_arrow

_FIELD_ID: Final = b"PARQUET:field_id"


def resolve_fields(layout: Layout, file_schema: pa.Schema) -> tuple[Field, ...]:
    """The file's columns as fields with the table's ids and the file's own names and types; unknown columns left out.

    Ids in the file's footer win; a file without any is read through the layout's name mapping, or else by the names
    of the layout's fields (Iceberg specification, "Column Projection").
    """
    if any(_has_ids(field) for field in file_schema):
        return tuple(field for column in file_schema if (field := _by_id(column)) is not None)
    mapping = layout.name_mapping or tuple(_mapping_of(field) for field in layout.fields)
    return tuple(field for column in file_schema if (field := _by_name(column, mapping)) is not None)


def _has_ids(field: pa.Field) -> bool:
    return _FIELD_ID in (field.metadata or {}) or any(_has_ids(child) for child in _children(field.type))


def _children(kind: pa.DataType) -> Sequence[pa.Field]:
    if pa.types.is_map(kind):
        return (kind.key_field, kind.item_field)
    return [kind.field(index) for index in range(kind.num_fields)]


def _with_children(kind: pa.DataType, children: Sequence[Field | None]) -> Type:
    """An Arrow type as ours with these children, positionally; a struct's unknown ones are left out.

    A struct child that is left out is still found by name when read, since names in the file stay.
    """
    plain = type_from_arrow(kind, lambda: -1, "a source column")
    known = [child if child is not None else Field(-1, "", plain) for child in children]
    match plain:
        case StructType(fields=fields):
            merged = [old if new is None else new for old, new in zip(fields, children, strict=True)]
            return StructType(tuple(merged))
        case ListType(large=large):
            return ListType(known[0], large)
        case FixedListType(size=size):
            return FixedListType(known[0], size)
        case MapType():
            return MapType(known[0], known[1])
        case _:
            return plain


def _by_id(field: pa.Field) -> Field | None:
    raw = (field.metadata or {}).get(_FIELD_ID)
    if raw is None:
        return None
    children = [_by_id(child) for child in _children(field.type)]
    return Field(int(raw), field.name, _with_children(field.type, children), field.nullable)


def _by_name(field: pa.Field, mapping: Sequence[Mapping[str, Any]]) -> Field | None:
    entry = next((m for m in mapping if field.name in m.get("names", ())), None)
    if entry is None or entry.get("field-id") is None:
        return None
    below = entry.get("fields", ())
    children = [
        _by_name(_alias(child, field.type, index), below) for index, child in enumerate(_children(field.type))
    ]
    renamed = [
        None if new is None else msgspec.structs.replace(new, name=child.name)
        for new, child in zip(children, _children(field.type), strict=True)
    ]
    return Field(int(entry["field-id"]), field.name, _with_children(field.type, renamed), field.nullable)


def _alias(child: pa.Field, parent: pa.DataType, index: int) -> pa.Field:
    """Children of lists and maps are called element, key and value in a name mapping, whatever the file calls them."""
    if pa.types.is_map(parent):
        return child.with_name(("key", "value")[index])
    return child if pa.types.is_struct(parent) else child.with_name("element")


def _mapping_of(field: Field) -> dict[str, Any]:
    """The name mapping that a field's own name implies."""
    below = [_mapping_of(child) for child in field.children()]
    match field.type:
        case ListType() | FixedListType():
            below = [{**below[0], "names": ["element"]}]
        case MapType():
            below = [{**below[0], "names": ["key"]}, {**below[1], "names": ["value"]}]
    return {"field-id": field.id, "names": [field.name], "fields": below}
