"""What users hand over, as Arrow batches that fit the table: matched by name, cast safely, checked, or refused clearly."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import InvalidInputError
from vectorlake.plan.projection import constant
from vectorlake.schema import (
    Field,
    FixedListType,
    Schema,
    describe,
    did_you_mean,
    is_vector,
    listing,
    storage_array,
)


def as_reader(data: object) -> pa.RecordBatchReader:
    """Any tabular data as a stream of Arrow batches, without reading it whole where it is a stream itself.

    Takes whatever has `__arrow_c_stream__` (pyarrow, pandas, polars, DuckDB relations, scans), a pyarrow dataset or
    record batch, an iterable of record batches, a mapping of columns (numpy arrays of rank 2 are vectors), or a list
    of rows as mappings.

    Raises:
        InvalidInputError: anything else.
    """
    if isinstance(data, pa.RecordBatchReader):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data)
    if _is_dataset(data):
        return data.scanner().to_reader()  # type: ignore[attr-defined]
    if isinstance(data, Mapping):
        try:
            return pa.table({name: _column(values) for name, values in data.items()}).to_reader()
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as e:
            raise InvalidInputError(f"the columns don't make a table: {e}") from e
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _rows(data)
    if isinstance(data, Iterator):
        return _stream(data)
    raise InvalidInputError(
        f"can't read rows from {type(data).__name__}: pass an Arrow table or reader, a pandas or polars frame, a DuckDB "
        "relation, a mapping of columns, or a list of rows"
    )


def _is_dataset(data: object) -> bool:
    """Whether this is a pyarrow dataset; that module, which loads pandas, is imported only by those who use it."""
    module = sys.modules.get("pyarrow.dataset")
    return module is not None and isinstance(data, module.Dataset)


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return values


def _rows(rows: Sequence[Any]) -> pa.RecordBatchReader:
    if rows and all(isinstance(row, pa.RecordBatch) for row in rows):
        return _stream(iter(rows))
    if not all(isinstance(row, Mapping) for row in rows):
        raise InvalidInputError("a list of rows must hold mappings, such as {'id': 1, 'name': 'a'}")
    try:
        names = dict.fromkeys(name for row in rows for name in row)
        return pa.table({name: [row.get(name) for row in rows] for name in names}).to_reader()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as e:
        raise InvalidInputError(f"the rows don't make a table: {e}") from e


def _stream(batches: Iterator[Any]) -> pa.RecordBatchReader:
    first = next(batches, None)
    if not isinstance(first, pa.RecordBatch):
        raise InvalidInputError(
            "an iterator of data must yield Arrow record batches (and at least one, for its schema)"
        )

    def chained() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return pa.RecordBatchReader.from_batches(first.schema, chained())


def check_columns(incoming: pa.Schema, schema: Schema) -> None:
    """Compare incoming columns with the table's, before anything is read or written.

    Raises:
        InvalidInputError: unknown or duplicate columns, a missing column that can't be null, types that don't fit.
    """
    names = incoming.names
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(f"column {name!r} occurs twice in the data")
        if name not in schema.names:
            raise InvalidInputError(
                f"the table has no column {name!r}{did_you_mean(name, schema.names)}; its columns are "
                f"{listing(schema.names)}. Add it with add_column, or leave it out"
            )
    for field in schema.fields:
        if field.name not in names:
            if not field.nullable and field.default is None:
                raise InvalidInputError(
                    f"column {field.name!r} must not be null and has no default, but the data lacks it"
                )
            continue
        found = incoming.field(field.name).type
        if not castable(found, field.to_storage().type):
            raise InvalidInputError(
                f"column {field.name!r} is {describe(field.type, field.logical)}, the data has {found}: cast it first"
            )


def castable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type may be written into a column of another (each value is still checked)."""
    t = pa.types
    if isinstance(found, pa.BaseExtensionType):
        found = found.storage_type
    if t.is_dictionary(found) or t.is_run_end_encoded(found):
        return castable(found.value_type, wanted)
    if found == wanted or t.is_null(found):
        return True
    if t.is_struct(found) and t.is_struct(wanted):
        names = {child.name for child in wanted.fields}
        return all(
            child.name in names and castable(child.type, wanted.field(child.name).type)
            for child in found.fields
        )
    if t.is_map(found) or t.is_map(wanted):
        return bool(t.is_map(found) and t.is_map(wanted)) and (
            castable(found.key_type, wanted.key_type) and castable(found.item_type, wanted.item_type)
        )
    if _is_list(found) and _is_list(wanted):
        if (
            t.is_fixed_size_list(found)
            and t.is_fixed_size_list(wanted)
            and found.list_size != wanted.list_size
        ):
            return False
        return castable(found.value_type, wanted.value_type)
    families = (
        lambda kind: t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind),
        lambda kind: t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind),
        lambda kind: (
            t.is_binary(kind)
            or t.is_large_binary(kind)
            or t.is_fixed_size_binary(kind)
            or t.is_binary_view(kind)
        ),
        lambda kind: t.is_timestamp(kind) or t.is_date(kind),
        t.is_time,
        t.is_duration,
    )
    return any(family(found) and family(wanted) for family in families)


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_list(kind)
        or t.is_large_list(kind)
        or t.is_fixed_size_list(kind)
        or t.is_list_view(kind)
        or t.is_large_list_view(kind)
    )


def conform(batch: pa.RecordBatch, fields: Sequence[Field], *, first_row: int = 0) -> pa.RecordBatch:
    """One batch as the table stores it: columns in order, in storage types, missing ones filled, every value checked.

    `first_row` is how many rows came before, for error messages.

    Raises:
        InvalidInputError: a value that doesn't fit, a null where none may be, a vector of another dimension or with
            NaN or infinity; names column and row.
    """
    arrays = []
    for field in fields:
        if field.name in batch.schema.names:
            array = _cast(storage_array(batch.column(field.name)), field, first_row)
        else:
            array = constant(field, field.default, batch.num_rows)
        _check(array, field, first_row)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([field.to_storage() for field in fields]))


def conforming(batches: Iterable[pa.RecordBatch], fields: Sequence[Field]) -> Iterator[pa.RecordBatch]:
    """A stream of batches, each as `conform` gives it."""
    row = 0
    for batch in batches:
        yield conform(batch, fields, first_row=row)
        row += batch.num_rows


def _cast(array: pa.Array, field: Field, first_row: int) -> pa.Array:
    target = field.to_storage().type
    if array.type == target:
        return array
    if (
        isinstance(field.type, FixedListType)
        and _is_list(array.type)
        and not pa.types.is_fixed_size_list(array.type)
    ):
        _check_lengths(array, field, first_row)
        if array.null_count == len(array):  # pyarrow's cast crashes where there is no buffer of numbers
            return pa.nulls(len(array), target)
    try:
        if _holds_decimals(array.type) and _holds_half_floats(target):
            array = array.cast(
                _with_floats(target)
            )  # pyarrow has no way from decimals straight to half floats
        return array.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as e:
        if pa.types.is_struct(target):
            return _cast_struct(array, field, target, e)
        row = _first_failing(array, target)
        at = "" if row is None else f" in row {first_row + row} ({_shown(array[row])})"
        raise InvalidInputError(
            f"column {field.name!r} is {describe(field.type, field.logical)}; a value{at} does not fit: {e}"
        ) from e


def _leaf(kind: pa.DataType) -> pa.DataType:
    return _leaf(kind.value_type) if _is_list(kind) else kind


def _holds_decimals(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(_leaf(kind)))


def _holds_half_floats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_float16(_leaf(kind)))


def _with_floats(kind: pa.DataType) -> pa.DataType:
    """A list type of half floats, at any depth, as one of floats."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_with_floats(kind.value_type), kind.list_size)
    return pa.list_(_with_floats(kind.value_type)) if _is_list(kind) else pa.float32()


def _cast_struct(array: pa.Array, field: Field, target: pa.DataType, error: Exception) -> pa.Array:
    """Match a struct's children by name: pyarrow's own cast wants them complete and in order."""
    if not pa.types.is_struct(array.type):
        raise InvalidInputError(
            f"column {field.name!r} does not fit {describe(field.type)}: {error}"
        ) from error
    names = [child.name for child in array.type.fields]
    children = [
        _cast(storage_array(array.field(names.index(child.name))), child, 0)
        if child.name in names
        else constant(child, child.default, len(array))
        for child in field.children()
    ]
    return pa.StructArray.from_arrays(
        children, fields=list(target.fields), mask=array.is_null() if array.null_count else None
    )


def _first_failing(array: pa.Array, target: pa.DataType) -> int | None:
    low, high = 0, len(array)
    if not high:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        try:
            array.slice(low, middle - low).cast(target)
            low = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            high = middle
    return low


def _shown(scalar: pa.Scalar, most: int = 80) -> str:
    text = repr(scalar.as_py())
    return text if len(text) <= most else text[:most] + "…"


def _check_lengths(array: pa.Array, field: Field, first_row: int) -> None:
    assert isinstance(field.type, FixedListType)
    lengths = pc.list_value_length(array)
    wrong = pc.index(pc.fill_null(pc.not_equal(lengths, field.type.size), False), True).as_py()
    if wrong >= 0:
        raise InvalidInputError(
            f"column {field.name!r} is {describe(field.type)}, but row {first_row + wrong} has "
            f"{lengths[wrong].as_py()} numbers"
        )


def _check(array: pa.Array, field: Field, first_row: int) -> None:
    if not field.nullable and array.null_count:
        row = pc.index(array.is_null(), True).as_py()
        raise InvalidInputError(f"column {field.name!r} must not be null, but row {first_row + row} is")
    if is_vector(field.type):
        _check_vectors(array, field, first_row)


def _check_vectors(array: pa.FixedSizeListArray, field: Field, first_row: int) -> None:
    """Refuse NaN, infinity and null inside vectors: no distance to them means anything."""
    size = array.type.list_size
    values = array.values.slice(array.offset * size, len(array) * size)
    if values.null_count:
        inside = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, size)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(inside.any(axis=1) & valid)
        if len(bad):
            raise InvalidInputError(
                f"column {field.name!r}: the vector in row {first_row + int(bad[0])} holds a null number"
            )
        return
    if not pa.types.is_floating(values.type):
        return
    numbers = values.to_numpy(zero_copy_only=False)
    if finite(numbers):
        return
    rows = np.isfinite(numbers.reshape(-1, size)).all(axis=1)
    if array.null_count:
        rows |= array.is_null().to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~rows)
    if len(bad):
        raise InvalidInputError(
            f"column {field.name!r}: the vector in row {first_row + int(bad[0])} holds NaN or infinity, or a number too "
            f"large for {describe(field.type)} ({len(bad)} such rows in this batch): replace it by null, which never matches"
        )


def finite(numbers: np.ndarray) -> bool:
    """Whether all numbers are finite, in one pass over memory without a temporary of their size."""
    if numbers.dtype == np.float16:
        return not bool(((numbers.view(np.uint16) & 0x7C00) == 0x7C00).any())
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all its terms are; an overflowing sum of finite terms is settled by the slow way.
        return bool(np.isfinite(np.add.reduce(numbers))) or bool(np.isfinite(numbers).all())
