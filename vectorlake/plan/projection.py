"""Data written under one schema, read under another: match fields by id, cast, reorder, fill in what is missing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import CorruptDataError
from vectorlake.metadata.literals import literal_from_json
from vectorlake.schema import (
    ExtensionType,
    Field,
    FixedListType,
    ListType,
    MapType,
    StructType,
    storage_array,
    type_to_arrow,
)


def constant(field: Field, value: object, length: int) -> pa.Array:
    """`length` rows of one JSON literal (None for null) in a field's storage type."""
    kind = type_to_arrow(field.type, storage=True)
    if value is None:
        return pa.nulls(length, kind)
    scalar = literal_from_json(value, kind)
    if pa.types.is_nested(kind):
        return pa.array([scalar.as_py()], kind).take(pa.array(np.zeros(length, np.int64)))
    return pa.repeat(scalar, length)


def convert(array: pa.Array, stored: Field, wanted: Field) -> pa.Array:
    """An array of field `stored` (as its file has it) as an array of the table's field `wanted`, in storage types.

    Children are matched by id: renamed and reordered ones are found, missing ones become their default or null,
    dropped ones disappear, widened ones are cast.

    Raises:
        CorruptDataError: the stored values can't be read as the wanted type.
    """
    array = storage_array(array)
    target = type_to_arrow(wanted.type, storage=True)
    if array.type == target and _same_ids(stored, wanted) and _same_names(array.type, target):
        return array
    try:
        return _convert(array, stored, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as e:
        raise CorruptDataError(
            f"column {wanted.name!r} is stored as {array.type} and can't be read as {target}: {e}"
        ) from e


def _same_ids(stored: Field, wanted: Field) -> bool:
    a, b = stored.children(), wanted.children()
    return len(a) == len(b) and all(x.id == y.id and _same_ids(x, y) for x, y in zip(a, b, strict=True))


def _same_names(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether children have the same names too, which type equality ignores for lists, but some engines do not."""
    return all(
        a.field(i).name == b.field(i).name and _same_names(a.field(i).type, b.field(i).type)
        for i in range(a.num_fields)
    )


def _convert(array: pa.Array, stored: Field, wanted: Field) -> pa.Array:
    array = storage_array(array)
    target = type_to_arrow(wanted.type, storage=True)
    kind = wanted.type.storage if isinstance(wanted.type, ExtensionType) else wanted.type
    match kind:
        case StructType(fields=children):
            by_id = {child.id: index for index, child in enumerate(stored.children())}
            arrays = [
                _convert(_child(array, by_id[child.id]), stored.children()[by_id[child.id]], child)
                if child.id in by_id
                else constant(child, child.default, len(array))
                for child in children
            ]
            mask = pc.is_null(array) if array.null_count else None
            return pa.StructArray.from_arrays(arrays, fields=list(target.fields), mask=mask)
        case MapType(key=key, value=value):
            old_key, old_value = stored.children()
            offsets, base, stop = _offsets(array)
            keys = _convert(array.keys.slice(base, stop - base), old_key, key)
            items = _convert(array.items.slice(base, stop - base), old_value, value)
            return pa.MapArray.from_arrays(offsets, keys, items, type=target)
        case ListType(element=element, large=large):
            values, offsets = _list_parts(array, large)
            inner = _convert(values, stored.children()[0], element)
            build = pa.LargeListArray if large else pa.ListArray
            return build.from_arrays(offsets, inner, type=target)
        case FixedListType(element=element, size=size):
            if not pa.types.is_fixed_size_list(array.type):
                return array.cast(target)
            inner = _convert(
                array.values.slice(array.offset * size, len(array) * size), stored.children()[0], element
            )
            mask = pc.is_null(array) if array.null_count else None
            return pa.FixedSizeListArray.from_arrays(inner, type=target, mask=mask)
        case _:
            return array if array.type == target else array.cast(target)


def _child(array: pa.StructArray, index: int) -> pa.Array:
    """A struct's child for the rows of the (possibly sliced) struct; its own nulls only."""
    return array.field(index)


def _offsets(array: pa.Array) -> tuple[pa.Array, int, int]:
    """List offsets from zero with nulls marked, and which range of the values they cover."""
    raw = array.offsets.to_numpy(zero_copy_only=False)
    base, stop = (int(raw[0]), int(raw[-1])) if len(raw) else (0, 0)
    shifted = raw - base
    kind = pa.int64() if array.offsets.type == pa.int64() else pa.int32()
    if array.null_count:
        mask = np.append(pc.is_null(array).to_numpy(zero_copy_only=False), [False])
        return pa.array(shifted, kind, mask=mask), base, stop
    return pa.array(shifted, kind), base, stop


def _list_parts(array: pa.Array, large: bool) -> tuple[pa.Array, pa.Array]:
    offsets, base, stop = _offsets(array)
    return array.values.slice(base, stop - base), offsets.cast(pa.int64()) if large else offsets
