"""Multivector queries as users hand them over, as token vectors end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.kernels.maxsim import Tokens
from vectorlake.schema import Field, ListType, describe, did_you_mean, listing, storage_array
from vectorlake.search.queries import Queries, rounded

_HINT: Final = (
    "pass one multivector as an array [tokens, dimension], several as a list of those, an Arrow array of lists of "
    "vectors, or a table with such a column"
)


def as_multivectors(data: Any, column: Field) -> tuple[Tokens, Queries]:
    """Queries for a multivector column: their tokens, rounded as those of a vector column are, and which were given.

    A null query has no place among them. One without tokens has, and finds nothing.

    Raises:
        InvalidInputError: tokens of another dimension than the column's, NaN or infinity, or anything that is no
            multivector; names the query.
    """
    assert isinstance(column.type, ListType)
    kind = column.type.element.type
    dimension: int = kind.size  # type: ignore[union-attr]
    parts = _parts(data, column)
    kept = [(at, part) for at, part in enumerate(parts) if part is not None]
    for at, part in kept:
        if part.dtype.kind not in "fiu":
            raise InvalidInputError(f"query {at} must hold numbers, not {part.dtype}")
        if len(part) and part.shape[1] != dimension:
            raise InvalidInputError(
                f"the tokens of query {at} have dimension {part.shape[1]}, column {column.name!r} is "
                f"{describe(column.type)}"
            )
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InvalidInputError(f"query {at} holds NaN or infinity: no distance to it means anything")
    tokens = [part for _, part in kept if len(part)]
    vectors = np.concatenate(tokens) if tokens else np.empty((0, dimension), np.float32)
    offsets = np.cumsum([0, *(len(part) for _, part in kept)]).astype(np.int64)
    positions = np.array([at for at, _ in kept], np.int64)
    vectors = rounded(vectors, kind)
    return Tokens(vectors, offsets), Queries(vectors, positions, len(parts))


def _parts(data: Any, column: Field) -> list[npt.NDArray[Any] | None]:
    """Each query's tokens [t, d], or None where it is null."""
    if isinstance(data, np.ndarray) and data.dtype != object:
        if data.ndim == 2:
            return [data]
        if data.ndim == 3:
            return list(data)
        raise _refusal(f"an array of rank {data.ndim}")
    if isinstance(data, pa.ChunkedArray):
        data = pa.concat_arrays(data.chunks) if data.num_chunks else pa.nulls(0, data.type)
    if isinstance(data, pa.Scalar):
        data = pa.array([data.as_py()], data.type)
    if isinstance(data, pa.Array):
        return _from_arrow(data)
    if isinstance(data, pa.RecordBatch):
        return _from_table(pa.Table.from_batches([data]), column)
    if hasattr(data, "__arrow_c_stream__"):
        series = hasattr(data, "dtype")
        return _parts(pa.chunked_array(data), column) if series else _from_table(pa.table(data), column)
    if hasattr(data, "__arrow_c_array__"):
        return _from_arrow(pa.array(data))
    if isinstance(data, list | tuple | np.ndarray):
        return _from_list(list(data))
    raise _refusal(type(data).__name__)


def _refusal(what: str) -> InvalidInputError:
    return InvalidInputError(f"can't read multivector queries from {what}: {_HINT}")


def _from_list(data: list[Any]) -> list[npt.NDArray[Any] | None]:
    """One multivector as a list of tokens, or a list of multivectors."""
    depths = {_depth(part) for part in data if part is not None}
    if depths <= {0} and depths:
        raise _refusal("a list of numbers")
    nulls = any(part is None for part in data)
    if depths == {1} and not nulls and any(len(part) for part in data):
        return [_matrix(data, 0)]
    return [None if part is None else _matrix(part, at) for at, part in enumerate(data)]


def _depth(part: Any) -> int:
    if isinstance(part, np.ndarray) and part.dtype != object:
        return part.ndim
    if isinstance(part, Sequence | np.ndarray) and not isinstance(part, str | bytes):
        return 1 + (_depth(part[0]) if len(part) else 0)
    return 0


def _matrix(part: Any, at: int) -> npt.NDArray[Any]:
    if len(part) == 0:
        return np.empty((0, 0), np.float32)
    lengths = {len(token) if _depth(token) else -1 for token in part}
    if len(lengths) > 1:
        counts = listing(sorted(map(str, lengths)))
        raise InvalidInputError(f"the tokens of query {at} are ragged: they have {counts} numbers")
    try:
        matrix = np.array([np.asarray(token) for token in part])
    except (TypeError, ValueError) as e:
        raise InvalidInputError(f"the tokens of query {at} are not vectors of numbers: {e}") from e
    if matrix.ndim != 2:
        raise _refusal(f"query {at}, which has rank {matrix.ndim}")
    return matrix


def _from_arrow(array: pa.Array) -> list[npt.NDArray[Any] | None]:
    array = storage_array(array)
    kind = array.type
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind)
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_fixed_size_list(kind.value_type):
        return [_tokens(array, 0)]
    if nested or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        if pa.types.is_fixed_size_list(storage_array(pa.nulls(0, inner)).type):
            return [_tokens(part.values, at) if part.is_valid else None for at, part in enumerate(array)]
        return _from_list(array.to_pylist())
    raise _refusal(f"an Arrow array of {kind}")


def _tokens(array: pa.Array, at: int) -> npt.NDArray[Any]:
    array = storage_array(array)
    flat = array.flatten()
    if array.null_count or flat.null_count:
        raise InvalidInputError(f"query {at} holds a null token or number")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, array.type.list_size)


def _from_table(table: pa.Table, column: Field) -> list[npt.NDArray[Any] | None]:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    names = [
        field.name
        for field in table.schema
        if any(test(field.type) for test in lists) and any(test(field.type.value_type) for test in lists)
    ]
    if column.name in names:
        names = [column.name]
    if len(names) != 1:
        found = f"has {listing(names)}" if names else "has none"
        raise InvalidInputError(
            f"the query table must have one multivector column, it {found}{did_you_mean(column.name, names)}"
        )
    return _parts(table.column(names[0]), column)
