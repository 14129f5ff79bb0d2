"""The demo's SQL: what DuckDB is asked over the lake, and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COUNT: Final = """\
SELECT package, count(*) AS documented, avg(length)::INT AS mean_length
FROM lake.docs.docstrings
WHERE kind = 'function' AND NOT deprecated
GROUP BY package ORDER BY documented DESC LIMIT 5"""

KNN: Final = """\
SELECT row_id, distance, name, signature
FROM knn('docs.docstrings', getvariable('question'),
         k := {k}, metric := 'cosine')"""

ASKED: Final = """\
CREATE TEMP VIEW asked AS
SELECT name AS ours, embedding FROM lake.docs.docstrings
WHERE package = 'python' AND kind = 'function'"""

KNN_JOIN: Final = """\
SELECT ours, name AS theirs, distance
FROM knn_join('asked', 'docs.docstrings', k := 1, vec := 'embedding',
              metric := 'cosine', filter := 'package <> ''python''')
ORDER BY distance, ours"""


@dataclass(frozen=True)
class Answer:
    """A statement and the rows it gave."""

    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> list[Any]:
        """One column's values."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


@contextmanager
def connect(lake: str) -> Iterator[Any]:
    """A DuckDB connection to which the lake is attached as `lake`."""
    import duckdb
    import vectorlake_duckdb

    import vectorlake

    with duckdb.connect() as con:
        vectorlake_duckdb.attach(con, vectorlake.connect(lake), name="lake")
        yield con


def count(con: Any) -> Answer:
    """How many functions each package documents."""
    return _ask(con, COUNT)


def knn(con: Any, question: NDArray[np.float32], k: int) -> Answer:
    """The rows nearest to a question, which is left in DuckDB's variable `question`."""
    con.execute("SET VARIABLE question = $1::FLOAT[]", [question.tolist()])
    return _ask(con, KNN.format(k=k))


def knn_join(con: Any) -> Answer:
    """For each function of the standard library its nearest neighbour in another package, closest first."""
    con.execute(ASKED)
    joined = _ask(con, KNN_JOIN)
    return Answer(f"{ASKED};\n\n{KNN_JOIN}", joined.columns, joined.rows)


def _ask(con: Any, statement: str) -> Answer:
    relation = con.sql(statement)
    return Answer(statement, tuple(relation.columns), tuple(relation.fetchall()))
