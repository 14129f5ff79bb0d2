"""A filter over a lake's table finds what DataFusion finds in a table of its own: NaN, NULL and -0.0 included."""

from __future__ import annotations

import pyarrow as pa
import pytest
from filter_cases import COMPARISONS, conditions, rows
from hypothesis import HealthCheck, given, settings

import vectorlake as vl

datafusion = pytest.importorskip("datafusion")
vectorlake_datafusion = pytest.importorskip("vectorlake_datafusion")

LITERALS = {
    "i": ["0", "1", "2", "7", "4611686018427387904", "1.5"],
    "t": ["0", "127", "-128", "300", "1.5"],
    "u": ["0", "5", "18446744073709551615"],
    "f": ["0", "-0.0::DOUBLE", "2.5", "4", "'nan'::DOUBLE", "'inf'::DOUBLE", "'-inf'::DOUBLE", "0.1::FLOAT"],
    "g": ["0", "0.1", "0.1::FLOAT", "4", "'nan'::FLOAT", "'-inf'::FLOAT"],
    "h": ["0", "arrow_cast(0.5, 'Float16')", "4", "'nan'::FLOAT"],
    "s": ["''", "'a'", "'ab'", "'é'", "'zz'"],
    "b": ["true", "false"],
    "d": ["DATE '2024-02-29'", "DATE '1969-07-20'", "TIMESTAMP '2024-02-29 12:00:00'"],
    "m": ["TIMESTAMP '2024-02-29 12:00:00.5'", "TIMESTAMP '2024-02-29 12:00:00.5001'", "DATE '2024-03-01'"],
    "n": ["TIMESTAMP '2024-02-29 12:00:00.5'", "TIMESTAMP '2024-02-29 12:00:00.500001'", "DATE '2024-02-29'"],
    "z": ["arrow_cast('2024-02-29T12:00:00.5Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"],
    "x": ["0", "1.25", "1.255", "-7"],
    "k": ["X''", "X'61'", "X'FF00'"],
    "st['a']": ["1", "3", "9"],
    "st['f']": ["2.5", "'nan'::DOUBLE", "9"],
    "st['in']['w']": ["'a'", "'q'"],
}


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> datafusion.SessionContext:
    lake = vl.connect(tmp_path_factory.mktemp("lake"))
    data = rows()
    table = lake.create_table("ns.items", data.take(list(range(30))))
    for start, stop in ((30, 31), (31, 70), (70, 96)):
        table.append(data.take(list(range(start, stop))))
    table.delete("id = 40")
    context = datafusion.SessionContext()
    vectorlake_datafusion.attach(context, lake)
    context.from_arrow(data.filter(pa.compute.field("id") != 40), name="native")
    return context


def assert_same(ctx: datafusion.SessionContext, conditions: list[str]) -> None:
    """All conditions in one statement for each table: each has a scan of its own."""
    found = []
    for table in ("lake.ns.items", "native"):
        parts = (f"SELECT {i} AS condition, id FROM {table} WHERE {c}" for i, c in enumerate(conditions))
        rows = ctx.sql(" UNION ALL ".join(parts)).to_pydict()
        pairs = list(zip(rows["condition"], rows["id"], strict=True))
        found.append({c: sorted(i for at, i in pairs if at == index) for index, c in enumerate(conditions)})
    assert found[0] == found[1]


@pytest.mark.parametrize("column", list(LITERALS))
def test_each_comparison_with_each_literal(ctx: datafusion.SessionContext, column: str) -> None:
    for literal in LITERALS[column]:
        plain = [f"{column} {comparison} {literal}" for comparison in COMPARISONS]
        assert_same(ctx, [*plain, *(f"NOT ({condition})" for condition in plain[2:6])])


@pytest.mark.parametrize("column", list(LITERALS))
def test_each_membership_range_and_null(ctx: datafusion.SessionContext, column: str) -> None:
    literals = LITERALS[column]
    low, high = literals[0], literals[-1]
    assert_same(
        ctx,
        [
            f"{column} IN ({', '.join(literals)})",
            f"{column} NOT IN ({', '.join(literals[:2])})",
            f"{column} IN ({literals[0]}, NULL)",
            # Four or more are a list, and not a chain of OR.
            f"{column} NOT IN ({', '.join(literals[-1:] * 4)})",
            f"{column} IN ({', '.join(literals[-1:] * 4)}, NULL)",
            f"{column} NOT IN ({', '.join(literals[-1:] * 4)}, NULL)",
            f"{column} BETWEEN {low} AND {high}",
            f"{column} NOT BETWEEN {low} AND {high}",
            f"{column} IS NULL",
            f"{column} IS NOT NULL",
            f"NOT ({column} IS NULL OR {column} = {low})",
            f"coalesce({column} = {low}, true)",
        ],
    )


@pytest.mark.parametrize(
    "condition", ["f < g", "f <= g", "f > g", "f >= g", "f = g", "f <> g", "i > f", "f = f"]
)
def test_columns_beside_each_other(ctx: datafusion.SessionContext, condition: str) -> None:
    assert_same(ctx, [condition, f"NOT ({condition})"])


# DataFusion compares with a list of four or more bit by bit, so that 0.0 is not -0.0; `=` and shorter lists, and we, say
# that they are equal.
UNSIGNED = LITERALS | {
    name: [text for text in LITERALS[name] if text not in ("0", "-0.0::DOUBLE")] for name in "fgh"
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=conditions(UNSIGNED))
def test_any_filter_finds_what_a_native_table_does(ctx: datafusion.SessionContext, condition: str) -> None:
    assert_same(ctx, [condition, f"NOT ({condition})"])
