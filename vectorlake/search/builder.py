"""A search for one query vector, put together step by step, in the manner of LanceDB and Milvus."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.expr.build import and_
from vectorlake.kernels import Metric
from vectorlake.schema import plain_columns
from vectorlake.search.choice import Mode
from vectorlake.search.explain import Explanation, explain
from vectorlake.search.knn import knn
from vectorlake.search.request import Options
from vectorlake.table.frames import as_pandas, as_polars
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
    predicate: Expr | None = None
    columns: tuple[str, ...] | None = None
    options: Options = field(default_factory=Options)

    def metric(self, metric: str | Metric) -> Search:
        """Measure by `"l2"`, `"cosine"`, `"dot"` or `"hamming"`."""
        return self._with(metric=metric)

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
        return self._with(k=k)

    def offset(self, rows: int) -> Search:
        """Skip so many of the nearest rows: the next page. Give 0 for the first one, so that pages fit each other."""
        return self._with(offset=rows)

    def index(self, name: str | None = None) -> Search:
        """Search by an index: the one named, or the one that fits."""
        return self._with(index=name, mode=Mode.INDEX)

    def exact(self) -> Search:
        """Measure all rows, whatever indexes there are."""
        return self._with(mode=Mode.EXACT)

    def nprobe(self, partitions: int) -> Search:
        """Look at so many partitions of an IVF index."""
        return self._effort(nprobe=partitions)

    def ef(self, visits: int) -> Search:
        """Visit so many rows of a graph index in the mean."""
        return self._effort(ef=visits)

    def target_recall(self, recall: float) -> Search:
        """Look at as much of the index as reaches this recall."""
        return self._effort(target_recall=recall)

    def max_distance(self, distance: float) -> Search:
        """Only rows within this distance."""
        return self._with(max_distance=distance)

    def include(self, row_ids: Any) -> Search:
        """Only rows with these row ids are candidates."""
        return self._with(include=row_ids)

    def exclude(self, row_ids: Any) -> Search:
        """Rows with these row ids are no candidates."""
        return self._with(exclude=row_ids)

    def group_by(self, column: str, size: int = 1) -> Search:
        """At most `size` rows for each value of a column."""
        return self._with(group_by=column, group_size=size)

    def to_arrow(self) -> pa.Table:
        """The rows found, nearest first: the selected columns, then `row_id` and `distance`."""
        found = knn(self.view, self.query, self._settled())
        if found.num_rows and found["query"][-1].as_py() > 0:
            raise InvalidInputError("search() takes one query vector: use knn() for many")
        rest = found.column_names[4:]
        return found.select([*rest, "row_id", "distance"])

    def explain(self) -> Explanation:
        """Run it, and tell how: print the result (see `Table.explain_knn`)."""
        return explain(self.view, self.query, self._settled())

    def to_list(self) -> list[dict[str, Any]]:
        """The rows found, as mappings."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def to_pandas(self) -> pandas.DataFrame:
        """The rows found, as a pandas frame."""
        return as_pandas(self.to_arrow())

    def to_polars(self) -> polars.DataFrame:
        """The rows found, as a polars frame."""
        return as_polars(self.to_arrow())

    def _settled(self) -> Options:
        names = self.columns
        if names is None:
            names = tuple(plain_columns(self.view.snapshot.schema))
        return replace(self.options, column=self.column, filter=self.predicate, columns=names)

    def _with(self, **changes: Any) -> Search:
        return replace(self, options=replace(self.options, **changes))

    def _effort(self, **changes: Any) -> Search:
        return self._with(effort=replace(self.options.effort, **changes))
