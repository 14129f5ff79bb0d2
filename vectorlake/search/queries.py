"""Query vectors as users hand them over, as one array that fits the column searched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import InvalidInputError
from vectorlake.kernels import Metric
from vectorlake.kernels.maxsim import check_maxsim_metric
from vectorlake.schema import (
    Field,
    FixedListType,
    ScalarType,
    Schema,
    Type,
    describe,
    did_you_mean,
    is_multivector,
    is_vector,
    listing,
    lists_of_numbers,
    storage_array,
)
from vectorlake.table.indexable import check_bits


@dataclass(frozen=True)
class Queries:
    """Query vectors [valid, dimension] and which of the `count` queries given they are (null ones are left out)."""

    vectors: np.ndarray
    positions: np.ndarray
    count: int


def vector_column(schema: Schema, name: str | None) -> Field:
    """The vector or multivector column to search: the one named, or the only one (vectors come first).

    Raises:
        InvalidInputError: none or several to choose from, or the column named holds no vectors.
        NotFoundError: no column of that name.
    """
    vectors = [field.name for field in schema.fields if is_vector(field.type)]
    multivectors = [field.name for field in schema.fields if is_multivector(field.type)]
    if name is not None:
        field = schema.field(name)
        if not is_vector(field.type) and not is_multivector(field.type):
            raise InvalidInputError(
                f"column {name!r} is {describe(field.type, field.logical)}, not a vector; "
                f"the vector columns are {listing(vectors + multivectors)}"
            )
        return field
    choice = vectors or multivectors
    if len(choice) != 1:
        problem = (
            "has no vector column"
            if not choice
            else f"has several vector columns ({listing(choice)}): name one with column="
        )
        raise InvalidInputError(f"the table {problem}")
    return schema.field(choice[0])


def as_queries(data: Any, column: Field) -> Queries:
    """Queries for a vector column, rounded to float32 unless the column is float64 (or both are integers).

    Rounding makes the answer the same from every engine, whatever type of number its query came as.

    Raises:
        InvalidInputError: another dimension than the column's, ragged or non-numeric input, NaN or infinity; names
            the query.
    """
    assert isinstance(column.type, FixedListType)
    vectors, valid = _as_matrix(data, column)
    if vectors.dtype.kind not in "fiu":
        raise InvalidInputError(f"queries must be vectors of numbers, not of {vectors.dtype}")
    positions = np.arange(len(vectors)) if valid is None else np.flatnonzero(valid)
    dimension = column.type.size
    if vectors.shape[1] != dimension and len(positions):
        raise InvalidInputError(
            f"the queries have dimension {vectors.shape[1]}, column {column.name!r} is {describe(column.type)}"
        )
    kept = vectors if len(positions) == len(vectors) else vectors[positions]
    kept = kept.reshape(-1, dimension)
    if kept.dtype.kind == "f" and not np.isfinite(kept).all():
        at = int(positions[np.flatnonzero(~np.isfinite(kept).all(axis=1))[0]])
        raise InvalidInputError(f"query {at} holds NaN or infinity: no distance to it means anything")
    return Queries(rounded(kept, column.type), positions, len(vectors))


def rounded(vectors: np.ndarray, kind: Type) -> np.ndarray:
    """Query vectors in the type in which they are compared with a column of vectors of some type."""
    assert isinstance(kind, FixedListType)
    assert isinstance(kind.element.type, ScalarType)
    element = kind.element.type.name
    if vectors.dtype.kind in "iu" and element in ("int8", "uint8"):
        limits = np.iinfo(element)
        if not len(vectors) or (vectors.min() >= limits.min and vectors.max() <= limits.max):
            return np.ascontiguousarray(vectors, dtype=element)
    target = np.dtype(np.float64 if element == "float64" else np.float32)
    if vectors.dtype == target:
        return np.ascontiguousarray(vectors)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(vectors, dtype=target)
    if rounded.size and not np.isfinite(rounded).all():
        raise InvalidInputError("a query holds numbers too large for float32: scale the vectors")
    return rounded


def _as_matrix(data: Any, column: Field) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers [queries, dimension] and which queries are not null; None for all."""
    if isinstance(data, np.ndarray):
        return _from_numpy(data)
    if isinstance(data, pa.ChunkedArray):
        data = pa.concat_arrays(data.chunks) if data.num_chunks else pa.nulls(0, data.type)
    if isinstance(data, pa.Array):
        return _from_arrow(data)
    if isinstance(data, pa.Scalar):
        return _from_arrow(pa.array([data.as_py()], data.type))
    if isinstance(data, pa.RecordBatch):
        return _from_table(pa.Table.from_batches([data]), column)
    if hasattr(data, "__arrow_c_stream__"):
        stream = pa.chunked_array(data) if hasattr(data, "dtype") else pa.table(data)  # a series, or a frame
        return _as_matrix(stream, column) if hasattr(data, "dtype") else _from_table(stream, column)
    if hasattr(data, "__arrow_c_array__"):
        return _from_arrow(pa.array(data))
    if hasattr(data, "__dlpack__"):
        return _from_numpy(_from_tensor(data))
    if isinstance(data, list | tuple):
        return _from_list(list(data))
    raise InvalidInputError(
        f"can't read query vectors from {type(data).__name__}: pass a numpy array, a tensor, lists of numbers, an Arrow "
        "array of vectors, or a table with a vector column"
    )


def _from_numpy(data: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if data.ndim == 1 and data.dtype != object:
        data = data.reshape(1, -1)
    if data.ndim == 1:
        return _from_list([None if row is None else list(row) for row in data])
    if data.ndim != 2:
        raise InvalidInputError(f"queries must have rank 1 or 2, not {data.ndim}")
    return data, None


def _from_tensor(data: Any) -> np.ndarray:
    """A tensor of another library as an array, without a copy."""
    try:
        return np.from_dlpack(data)
    except (BufferError, RuntimeError, TypeError) as e:
        raise InvalidInputError(
            f"the tensor of queries can't be read as a numpy array: {e}; detach it, and move it to the CPU as float32"
        ) from e


def _from_list(data: list[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    if data and all(isinstance(number, int | float | np.number) for number in data):
        return np.array(data).reshape(1, -1), None
    lengths = {len(row) for row in data if row is not None}
    if len(lengths) > 1:
        raise InvalidInputError(
            f"the queries are ragged: they have {listing(sorted(map(str, lengths)))} numbers"
        )
    width = lengths.pop() if lengths else 0
    valid = np.array([row is not None for row in data], bool)
    try:
        rows = np.array([row for row in data if row is not None], dtype=None if width else np.float32)
        rows = rows.reshape(int(valid.sum()), width)
    except (TypeError, ValueError) as e:
        raise InvalidInputError(f"the queries are not vectors of numbers: {e}") from e
    matrix = np.zeros((len(data), width), rows.dtype)
    matrix[valid] = rows
    return matrix, valid


def _from_arrow(array: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    array = storage_array(array)
    kind = array.type
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        if values.null_count:
            values = values.fill_null(0) if not _null_inside(array, valid, size) else _refuse_null()
        return values.to_numpy(zero_copy_only=False).reshape(-1, size), valid
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        dense = _one_length(array.drop_null()) if len(array) else None
        if dense is None:
            return _from_list(array.to_pylist())
        matrix = np.zeros((len(array), dense.shape[1]), dense.dtype)
        matrix[valid] = dense
        return matrix, valid
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _from_numpy(array.to_numpy(zero_copy_only=False))
    raise InvalidInputError(f"can't read query vectors from an Arrow array of {kind}")


def _one_length(lists: pa.Array) -> np.ndarray | None:
    """Lists of numbers as a matrix, unless their lengths differ or a number is null."""
    lengths, numbers = pc.list_value_length(lists), lists.flatten()
    bounds = pc.min_max(lengths)
    if numbers.null_count or bounds["min"] != bounds["max"]:
        return None
    if pa.types.is_decimal(numbers.type):
        numbers = numbers.cast(pa.float64())
    if not (pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type)):
        return None
    matrix: np.ndarray = numbers.to_numpy(zero_copy_only=False)
    return matrix.reshape(len(lists), bounds["min"].as_py() or 0)


def _null_inside(array: pa.FixedSizeListArray, valid: np.ndarray, size: int) -> bool:
    values = array.values.slice(array.offset * size, len(array) * size)
    inside = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, size)
    return bool((inside.any(axis=1) & valid).any())


def _refuse_null() -> pa.Array:
    raise InvalidInputError("a query vector holds a null number")


def _from_table(table: pa.Table, column: Field) -> tuple[np.ndarray, np.ndarray | None]:
    names = lists_of_numbers(table.schema)
    if column.name in names:
        names = [column.name]
    if len(names) != 1:
        found = f"has {listing(names)}" if names else "has none"
        raise InvalidInputError(
            f"the query table must have one vector column, it {found}{did_you_mean(column.name, names)}"
        )
    return _as_matrix(table.column(names[0]), column)


def refuse_metric(metric: Metric, column: Field) -> None:
    """Refuse a metric that the column's elements don't have.

    Raises:
        InvalidInputError: hamming, on anything but uint8.
    """
    if is_multivector(column.type):
        check_maxsim_metric(metric)
    else:
        check_bits(metric, column)


def as_bits(queries: Queries, column: Field) -> Queries:
    """Queries for hamming as packed bits; whole numbers of another type, as SQL sends them, stand for bytes.

    Raises:
        InvalidInputError: they are not whole numbers from 0 to 255.
    """
    given = queries.vectors
    if given.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            packed = given.astype(np.uint8)
        if not np.array_equal(packed, given):
            raise InvalidInputError(
                f"metric 'hamming' needs queries of packed bits, as column {column.name!r} has them: whole numbers "
                "from 0 to 255, as numpy.packbits makes them"
            )
        return replace(queries, vectors=packed)
    return queries


def element_of(column: Field) -> str:
    """The name of the type of a vector column's elements."""
    assert isinstance(column.type, FixedListType)
    assert isinstance(column.type.element.type, ScalarType)
    return column.type.element.type.name
