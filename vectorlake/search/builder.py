"""A search for one query vector, put together step by step, in the manner of LanceDB and Milvus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.expr.build import and_
from vectorlake.kernels import Metric
from vectorlake.schema import is_multivector, is_vector
from vectorlake.search.knn import knn
from vectorlake.search.queries import vector_column
from vectorlake.table.view import View

if TYPE_CHECKING:
    import pandas
    import polars


@dataclass(frozen=True)
class Search:
    """A search that has not run yet. Each step returns a new one; `to_arrow()` and its kin run it."""

    view: View
    query: object
    column: str | None = None
    measure: str | Metric = Metric.L2
    predicate: Expr | None = None
    columns: tuple[str, ...] | None = None
    k: int = 10

    def metric(self, metric: str | Metric) -> Search:
        """Measure by `"l2"`, `"cosine"`, `"dot"` or `"hamming"`."""
        return replace(self, measure=metric)

    def where(self, filter: str | Expr | object) -> Search:
        """Only rows for which the filter is true are candidates; several filters must all be true."""
        predicate = self.view.bind(filter)
        if self.predicate is not None and predicate is not None:
            predicate = and_(self.predicate, predicate)
        return replace(self, predicate=predicate)

    def select(self, columns: list[str]) -> Search:
        """Return these columns instead of all but vectors."""
        return replace(self, columns=tuple(columns))

    def limit(self, k: int) -> Search:
        """Return so many rows at most (10 by default)."""
        return replace(self, k=k)

    def to_arrow(self) -> pa.Table:
        """The rows found, nearest first: the selected columns, then `row_id` and `distance`."""
        schema = self.view.snapshot.schema
        names = self.columns
        if names is None:
            names = tuple(
                f.name for f in schema.fields if not is_vector(f.type) and not is_multivector(f.type)
            )
        field = vector_column(schema, self.column)
        found = knn(
            self.view,
            self.query,
            column=field.name,
            k=self.k,
            metric=self.measure,
            filter=self.predicate,
            columns=list(names),
        )
        if found.num_rows and found["query"][-1].as_py() > 0:
            raise InvalidInputError("search() takes one query vector: use knn() for many")
        rest = found.column_names[4:]
        return found.select([*rest, "row_id", "distance"])

    def to_list(self) -> list[dict[str, Any]]:
        """The rows found, as mappings."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def to_pandas(self) -> pandas.DataFrame:
        """The rows found, as a pandas frame."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """The rows found, as a polars frame."""
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame
