"""A search as functions that DataFusion calls with Arrow arrays: vectors to matches, row ids to values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vectorlake import InvalidInputError, NotFoundError, Table, VectorlakeError
from vectorlake.extend import FixedListType, did_you_mean, holds_vectors, is_vector, storage_array

MATCH: Final = pa.struct([("rank", pa.int32()), ("row_id", pa.int64()), ("distance", pa.float64())])
MATCHES: Final = pa.list_(MATCH)


@dataclass(frozen=True)
class Search:
    """A search of one version of a table, its options checked."""

    table: Table
    options: Mapping[str, Any]

    @classmethod
    def of(cls, table: Table, k: int | None, options: Mapping[str, Any]) -> Search:
        """The search with options as `Table.knn` takes them.

        Raises:
            InvalidInputError, NotFoundError: what `Table.knn` refuses.
        """
        if "columns" in options:
            raise InvalidInputError(
                "select the columns wanted from the result instead of naming them in columns"
            )
        pinned = table.at(table.version)  # whose handle nobody moves
        pinned.knn(pa.array([], pa.list_(pa.float32())), k=k, **options)
        return cls(pinned, {"k": k, **options})

    def check(self, queries: pa.Schema, vec: str) -> None:
        """Whether a frame's column can hold query vectors.

        Raises:
            NotFoundError: there is none of that name.
            InvalidInputError: it holds something else, or vectors of another dimension.
        """
        if vec not in queries.names:
            raise NotFoundError(
                f"the queries have no column {vec!r}{did_you_mean(vec, queries.names)}: "
                "name the one that holds vectors with vec"
            )
        kind = queries.field(vec).type
        t = pa.types
        if not (t.is_fixed_size_list(kind) or t.is_list(kind) or t.is_large_list(kind) or t.is_null(kind)):
            raise InvalidInputError(f"column {vec!r} of the queries must hold vectors, not {kind}")
        dimension = self._dimension()
        if t.is_fixed_size_list(kind) and dimension is not None and kind.list_size != dimension:
            raise InvalidInputError(
                f"column {vec!r} of the queries has dimension {kind.list_size}, "
                f"the vectors of {self.table.name} have {dimension}"
            )

    def _dimension(self) -> int | None:
        """Of the vectors searched; None for multivectors."""
        name = self.options.get("column")
        fields = self.table.snapshot.schema.fields
        for field in fields:
            if name in (None, field.name) and is_vector(field.type):
                assert isinstance(field.type, FixedListType)
                return field.type.size
        return None

    def matches(self, queries: pa.Array) -> pa.Array:
        """The matches of each query vector, nearest first; none for a null one."""
        try:
            found = self.table.knn(queries, **self.options)
        except VectorlakeError as e:
            raise e.with_traceback(None) from None
        counts = np.bincount(found["query"].to_numpy(), minlength=len(queries))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        columns = [found[field.name].combine_chunks() for field in MATCH]
        return pa.ListArray.from_arrays(
            pa.array(offsets), pa.StructArray.from_arrays(columns, fields=list(MATCH))
        )

    def fields(self) -> list[pa.Field]:
        """The columns of the rows found: all but vectors."""
        return [
            field.to_storage() for field in self.table.snapshot.schema.fields if not holds_vectors(field.type)
        ]

    def values(self, field: pa.Field) -> Callable[[pa.Array], pa.Array]:
        """The function from row ids to the values of a column."""

        def values(row_ids: pa.Array) -> pa.Array:
            found = self.table.take(row_ids, [field.name]).column(0).combine_chunks()
            return storage_array(found).cast(field.type)

        return values
