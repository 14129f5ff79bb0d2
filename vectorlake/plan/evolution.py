"""Schema evolution as pure functions: a schema and a wish give a new schema, or a clear refusal.

Columns are named by path: `price`, `address.city`, `tags.item` (a list's element under its name), `attrs.value`
(a map's value). No function touches data: ids tell older files what a column is called today.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pyarrow as pa

from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from vectorlake.metadata.literals import literal_to_json
from vectorlake.schema import (
    ExtensionType,
    Field,
    FixedListType,
    ListType,
    MapType,
    ScalarType,
    Schema,
    StructType,
    Type,
    check_names,
    describe,
    did_you_mean,
    field_from_arrow,
    listing,
    scalar_to_arrow,
    type_from_arrow,
    type_to_arrow,
)


def find(schema: Schema, path: str) -> Field:
    """The field at a path; a top-level column whose name itself holds dots is found first.

    Raises:
        NotFoundError: there is none; names the part that is missing and close names.
    """
    if whole := next((field for field in schema.fields if field.name == path), None):
        return whole
    fields: Sequence[Field] = schema.fields
    found: Field | None = None
    for part in path.split("."):
        found = next((field for field in fields if field.name == part), None)
        if found is None:
            names = [field.name for field in fields]
            raise NotFoundError(f"no column {path!r}{did_you_mean(part, names)}; there is {listing(names)}")
        fields = found.children()
    assert found is not None
    return found


def add_field(
    schema: Schema,
    path: str,
    kind: pa.DataType | pa.Field,
    *,
    next_id: int,
    default: object = None,
    nullable: bool = True,
) -> tuple[Schema, int]:
    """The schema with a column (or a struct's child) added at the end, and the next free field id.

    Rows of files that lack the column read as `default`, or null.

    Raises:
        AlreadyExistsError: the name is taken.
        InvalidInputError: not nullable without a default, or a default that doesn't fit the type.
    """
    parent_path, _, name = path.rpartition(".")
    parent = find(schema, parent_path) if parent_path else None
    if parent is not None and not isinstance(parent.type, StructType):
        raise InvalidInputError(
            f"can't add {path!r}: {parent_path!r} is {describe(parent.type)}, not a struct"
        )
    siblings = schema.fields if parent is None else parent.children()
    if any(field.name == name for field in siblings):
        raise AlreadyExistsError(f"column {path!r} exists already: choose another name, or drop it first")
    if parent is None:
        check_names([name])
    if not nullable and default is None:
        raise InvalidInputError(
            f"column {path!r} can't be non-null without a default: rows that exist have no value for it"
        )
    arrow = (
        kind.with_name(name).with_nullable(nullable)
        if isinstance(kind, pa.Field)
        else pa.field(name, kind, nullable)
    )
    counter = iter(range(next_id, 2**31))
    used = next_id

    def fresh() -> int:
        nonlocal used
        used = next(counter)
        return used

    field = field_from_arrow(arrow, fresh)
    literal = literal_to_json(default, type_to_arrow(field.type, storage=True))
    field = msgspec.structs.replace(field, default=literal)
    if parent is None:
        return msgspec.structs.replace(schema, fields=(*schema.fields, field)), used + 1

    def grow(old: Field) -> Field:
        return msgspec.structs.replace(old, type=StructType((*old.children(), field)))

    return _rewrite(schema, parent.id, grow), used + 1


def drop_field(schema: Schema, path: str, *, protected: Sequence[int] = ()) -> Schema:
    """The schema without a column or a struct's child; its id is never used again.

    Raises:
        InvalidInputError: the last column, a primary key column (`protected` ids), or a list's or map's child.
    """
    field = find(schema, path)
    if field.id in protected:
        raise InvalidInputError(f"column {path!r} belongs to the primary key and can't be dropped")
    if field in schema.fields:
        if len(schema.fields) == 1:
            raise InvalidInputError(f"column {path!r} is the only one: a table needs at least one column")
        return msgspec.structs.replace(schema, fields=tuple(f for f in schema.fields if f.id != field.id))
    parent = find(schema, path.rpartition(".")[0])
    if not isinstance(parent.type, StructType) or len(parent.type.fields) == 1:
        raise InvalidInputError(f"can't drop {path!r}: only a struct that keeps another child can lose one")
    rest = tuple(child for child in parent.type.fields if child.id != field.id)
    return _rewrite(schema, parent.id, lambda old: msgspec.structs.replace(old, type=StructType(rest)))


def rename_field(schema: Schema, path: str, name: str) -> Schema:
    """The schema with a field under another name.

    Raises:
        AlreadyExistsError: a sibling has that name.
    """
    field = find(schema, path)
    top = field in schema.fields
    if top:
        check_names([name])
    siblings = schema.fields if top else find(schema, path.rpartition(".")[0]).children()
    if any(sibling.name == name and sibling.id != field.id for sibling in siblings):
        raise AlreadyExistsError(f"can't rename {path!r}: a column {name!r} exists already")
    return _rewrite(schema, field.id, lambda old: msgspec.structs.replace(old, name=name))


def widen_field(schema: Schema, path: str, kind: pa.DataType) -> Schema:
    """The schema with a field's type widened such that every stored value keeps its meaning.

    Allowed: larger integers of the same sign (and unsigned into larger signed), larger floats, integers into floats
    that hold them exactly, decimals with more digits before the point or in all at the same scale, `string` →
    `large_string`, `binary` → `large_binary`, `date32` → `timestamp`, and any of these inside vectors and lists.

    Raises:
        InvalidInputError: any other change; says to add a column computed from this one instead.
    """
    field = find(schema, path)
    target = type_from_arrow(kind, lambda: -1, path)
    widened = _widen(field.type, target)
    if widened is None:
        raise InvalidInputError(
            f"column {path!r} can't become {describe(target)} from {describe(field.type)}: only widening is possible "
            "without rewriting; add a column computed from it instead"
        )
    return _rewrite(schema, field.id, lambda old: msgspec.structs.replace(old, type=widened))


def widened_to(schema: Schema, others: Sequence[Schema]) -> Schema:
    """The schema with each column as wide as it is in any of some others, so that it can hold the values of all."""
    fields = {field.id: field for field in schema.fields}
    for other in others:
        for field in other.fields:
            known = fields.get(field.id)
            wider = _widen(known.type, field.type) if known is not None else None
            if known is not None and wider is not None and wider != known.type:
                fields[field.id] = msgspec.structs.replace(known, type=wider)
    return msgspec.structs.replace(schema, fields=tuple(fields.values()))


def set_nullable(schema: Schema, path: str) -> Schema:
    """The schema with a field that may hold nulls from now on."""
    return _rewrite(schema, find(schema, path).id, lambda old: msgspec.structs.replace(old, nullable=True))


def reorder(schema: Schema, names: Sequence[str]) -> Schema:
    """The schema with its columns in the order of `names`; columns not named follow in their old order."""
    first = [find(schema, name) for name in names]
    for field, name in zip(first, names, strict=True):
        if field not in schema.fields:
            raise InvalidInputError(f"{name!r} is not a top-level column: only those have an order to change")
    if len({field.id for field in first}) != len(first):
        raise InvalidInputError("a column is named twice in the new order")
    rest = [field for field in schema.fields if field not in first]
    return msgspec.structs.replace(schema, fields=(*first, *rest))


def _rewrite(schema: Schema, field_id: int, change: Callable[[Field], Field]) -> Schema:
    return msgspec.structs.replace(
        schema, fields=tuple(_rewrite_field(f, field_id, change) for f in schema.fields)
    )


def _rewrite_field(field: Field, field_id: int, change: Callable[[Field], Field]) -> Field:
    if field.id == field_id:
        return change(field)

    def below(child: Field) -> Field:
        return _rewrite_field(child, field_id, change)

    kind: Type = field.type
    match kind:
        case StructType(fields=fields):
            kind = StructType(tuple(below(child) for child in fields))
        case ListType(element=element, large=large):
            kind = ListType(below(element), large)
        case FixedListType(element=element, size=size):
            kind = FixedListType(below(element), size)
        case MapType(key=key, value=value):
            kind = MapType(below(key), below(value))
        case _:
            return field
    return field if kind == field.type else msgspec.structs.replace(field, type=kind)


_INTEGER_DIGITS = {
    "int8": 3,
    "int16": 5,
    "int32": 10,
    "int64": 19,
    "uint8": 3,
    "uint16": 5,
    "uint32": 10,
    "uint64": 20,
}
_WIDER: dict[str, tuple[str, ...]] = {
    "int8": ("int16", "int32", "int64", "float16", "float32", "float64"),
    "int16": ("int32", "int64", "float32", "float64"),
    "int32": ("int64", "float64"),
    "uint8": ("uint16", "uint32", "uint64", "int16", "int32", "int64", "float16", "float32", "float64"),
    "uint16": ("uint32", "uint64", "int32", "int64", "float32", "float64"),
    "uint32": ("uint64", "int64", "float64"),
    "float16": ("float32", "float64"),
    "float32": ("float64",),
    "string": ("large_string",),
    "binary": ("large_binary",),
}


def _widen(old: Type, new: Type) -> Type | None:
    """The old type with scalars widened to the new one's, ids kept; None if that isn't a widening."""
    match old, new:
        case ScalarType(name=a), ScalarType(name=b):
            return (
                new
                if a == b or b in _WIDER.get(a, ()) or _widens(scalar_to_arrow(a), scalar_to_arrow(b))
                else None
            )
        case FixedListType(element=e, size=n), FixedListType(element=f, size=m) if n == m:
            inner = _widen(e.type, f.type)
            return inner and FixedListType(msgspec.structs.replace(e, type=inner), n)
        case ListType(element=e, large=was), ListType(element=f, large=large) if large >= was:
            inner = _widen(e.type, f.type)
            return inner and ListType(msgspec.structs.replace(e, type=inner), large)
        case MapType(key=k, value=v), MapType(key=l, value=w):
            key, value = _widen(k.type, l.type), _widen(v.type, w.type)
            if key is None or value is None:
                return None
            return MapType(msgspec.structs.replace(k, type=key), msgspec.structs.replace(v, type=value))
        case StructType(fields=xs), StructType(fields=ys) if [x.name for x in xs] == [y.name for y in ys]:
            inners = [_widen(x.type, y.type) for x, y in zip(xs, ys, strict=True)]
            if any(inner is None for inner in inners):
                return None
            return StructType(
                tuple(msgspec.structs.replace(x, type=i) for x, i in zip(xs, inners, strict=True) if i)
            )
        case ExtensionType(), ExtensionType():
            return old if (old.name, old.metadata) == (new.name, new.metadata) else None
        case _:
            return None


def _widens(old: pa.DataType, new: pa.DataType) -> bool:
    t = pa.types
    if t.is_decimal(old) and t.is_decimal(new):
        return bool(
            new.scale >= old.scale
            and new.precision - new.scale >= old.precision - old.scale
            and new.bit_width >= old.bit_width
        )
    return bool(t.is_date32(old) and t.is_timestamp(new) and new.tz is None)
