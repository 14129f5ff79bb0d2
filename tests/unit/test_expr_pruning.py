"""Which units of a table a filter can skip, from their bounds."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from vectorlake.expr import Bounds, bounds_key, from_pyarrow, parse_filter, prune_mask

SCHEMA = pa.schema(
    [
        ("x", pa.int64()),
        ("f", pa.float64()),
        ("h", pa.float16()),
        ("name", pa.string()),
        ("flag", pa.bool_()),
        ("day", pa.date32()),
        ("ts", pa.timestamp("us", "UTC")),
        ("s", pa.struct([("b", pa.int32())])),
        ("a.b", pa.int64()),
        ("a", pa.struct([("b", pa.int64())])),
        ("other", pa.int64()),
    ]
)
N = 6


UNKNOWN = [None] * 3


def bounds(
    data_type: pa.DataType, low: list[Any], high: list[Any], nulls: list[int], nans: Any = None
) -> Bounds:
    """Bounds of three units; then one of nulls only, one of which nothing is known, and one without rows."""
    return Bounds(
        pa.array([*low, *UNKNOWN], data_type),
        pa.array([*high, *UNKNOWN], data_type),
        pa.array([*nulls, 10, None, 0], pa.int64()),
        None if nans is None else pa.array([*nans, 0, None, 0], pa.int64()),
        np.array([10, 10, 10, 10, 10, 0]),
    )


LOW, HIGH = [0, 10, 5], [9, 19, 5]
BOUNDS = {
    "x": bounds(pa.int64(), LOW, HIGH, [0, 0, 3]),
    # No NaN, some, and unknown.
    "f": bounds(pa.float64(), LOW, HIGH, [0, 0, 0], [0, 2, None]),
    "h": bounds(pa.float32(), LOW, HIGH, [0, 0, 0]),
    "name": bounds(pa.string(), ["a", "abd", "b"], ["abc", "ac", "b"], [0, 0, 3]),
    "flag": bounds(pa.bool_(), [True, False, False], [True, False, True], [0, 5, 0]),
    "day": bounds(
        pa.date32(),
        [dt.date(2024, 1, 1), dt.date(2024, 2, 1), dt.date(2023, 1, 1)],
        [dt.date(2024, 1, 31), dt.date(2024, 2, 29), dt.date(2023, 1, 1)],
        [0, 0, 0],
    ),
    "s.b": bounds(pa.int32(), LOW, HIGH, [0, 0, 3]),
    "a.b": bounds(pa.int64(), LOW, HIGH, [0, 0, 3]),
}

PRUNED = [
    ("x = 3", "1...1."),
    ("x = 5", "1.1.1."),
    ("5 = x", "1.1.1."),
    ("x != 5", "11..1."),
    ("NOT (x = 5)", "11..1."),
    ("x < 5", "1...1."),
    ("x <= 5", "1.1.1."),
    ("x > 9", ".1..1."),
    ("9 < x", ".1..1."),
    ("NOT (x > 9)", "1.1.1."),
    ("x BETWEEN 15 AND 30", ".1..1."),
    ("x NOT BETWEEN 0 AND 9", ".1..1."),
    ("x IN (1, 30)", "1...1."),
    ("x IN (30, 40, 50, 60, 70, 12)", ".1..1."),
    ("x NOT IN (5, 6)", "11..1."),
    ("x IN (5, NULL)", "1.1.1."),
    ("x NOT IN (4, NULL)", "......"),
    ("x = 2.5", "......"),
    ("x > 9.5", ".1..1."),
    ("x > 1e30", "......"),
    ("NOT (x > 1e30)", "111.1."),
    ("x IS NULL", "..111."),
    ("x IS NOT NULL", "111.1."),
    ("x = 3 AND x > 1000", "....1."),
    ("x = 3 OR x > 15", "11..1."),
    ("NOT (x = 3 OR x > 15)", "111.1."),
    ("x < 5 AND f > 9", "....1."),
    ("x < 5 AND other = 1", "1...1."),
    ("other = 1", "111111"),
    ("x < other", "111.1."),
    ("CAST(x AS DOUBLE) > 9.5", ".1..1."),
    ("x + 1 > 100", "111111"),
    ("x IS DISTINCT FROM 5", "11111."),
    ("x IS NOT DISTINCT FROM 15", ".1..1."),
    ("TRUE", "111111"),
    ("FALSE", "......"),
    ("NULL", "......"),
    ("x < 5 OR NULL", "1...1."),
    # NaN is beyond all bounds: false in a comparison, true once that is negated, and unequal to all.
    ("f > 9", ".1..1."),
    ("NOT (f > 9)", "111.1."),
    ("f != 5", "111.1."),
    ("f = 5", "1.1.1."),
    ("NOT (f = 5)", "111.1."),
    ("f NOT IN (5, 6)", "111.1."),
    ("f >= 0", "111.1."),
    ("isnan(f)", ".11.1."),
    ("NOT isnan(f)", "111.1."),
    ("f IS NULL", "...11."),
    ("f = CAST('nan' AS DOUBLE)", "......"),
    ("f != CAST('nan' AS DOUBLE)", "111.1."),
    ("h > 9", ".1..1."),
    ("name = 'abb'", "1...1."),
    ("name LIKE 'ab%'", "11..1."),
    ("name LIKE 'abd%'", ".1..1."),
    ("name LIKE 'abd%x'", ".1..1."),
    ("name LIKE 'b%'", "..1.1."),
    ("name NOT LIKE 'b%'", "11..1."),
    ("starts_with(name, 'abc')", "1...1."),
    ("NOT starts_with(name, 'a')", "..1.1."),
    ("name LIKE '%z'", "111111"),
    ("name ILIKE 'Z%'", "111111"),
    ("name IN ('zz', 'b')", "..1.1."),
    ("flag", "1.1.1."),
    ("NOT flag", ".11.1."),
    ("flag IS TRUE", "1.1.1."),
    ("flag IS NOT TRUE", ".1111."),
    ("flag = false", ".11.1."),
    ("day >= '2024-02-01'", ".1..1."),
    ("day IN ('2024-01-05', '2024-03-01', '2024-03-02', '2024-03-03', '2024-03-04')", "1...1."),
    ("day < TIMESTAMP '2024-01-01 12:00:00'", "1.1.1."),
    ("s.b > 9", ".1..1."),
    ("s.b IS NULL", "..111."),
    ("s IS NULL", "111111"),
    ('"a.b" > 9', ".1..1."),
    ("CASE WHEN x > 9 THEN TRUE ELSE FALSE END", "111111"),
]


@pytest.mark.parametrize(("sql", "kept"), PRUNED, ids=[sql for sql, _ in PRUNED])
def test_prunes(sql: str, kept: str) -> None:
    mask = prune_mask(parse_filter(sql, SCHEMA), BOUNDS, N)
    assert mask.dtype == bool
    assert "".join("1" if one else "." for one in mask) == kept


def test_a_dotted_column_and_a_struct_field_do_not_mix() -> None:
    assert [bounds_key(path) for path in (("a.b",), ("a", "b"), ("a", "b.c"))] == ["a.b", "a.b", "a.b\\.c"]
    assert prune_mask(parse_filter("a.b > 9", SCHEMA), BOUNDS, N).tolist()[:3] == [False, True, False]
    both = parse_filter('a.b > 9 AND "a.b" < 10', SCHEMA)
    assert prune_mask(both, BOUNDS, N).tolist()[:3] == [True, False, True]


def test_opaque_expressions_keep_all() -> None:
    expression = from_pyarrow((pc.utf8_reverse(pc.field("name")) == "x") & (pc.field("x") > 9), SCHEMA)
    assert prune_mask(expression, BOUNDS, N).tolist() == [False, True, False, False, True, False]


def test_bounds_of_an_older_type_and_with_nan_in_them() -> None:
    old = {"x": Bounds(pa.array([1, 7], pa.int8()), pa.array([3, 9], pa.int8()), None, None, None)}
    assert prune_mask(parse_filter("x > 5", SCHEMA), old, 2).tolist() == [False, True]
    nan = float("nan")
    odd = {"f": Bounds(pa.array([nan, 1.0]), pa.array([nan, 2.0]), None, None, None)}
    assert prune_mask(parse_filter("f > 5", SCHEMA), odd, 2).tolist() == [True, False]
    useless = {"x": Bounds(pa.array(["a", "b"]), pa.array(["c", "d"]), None, None, np.array([1, 1]))}
    assert prune_mask(parse_filter("x > 5", SCHEMA), useless, 2).tolist() == [True, True]


def test_prefix_bounds_compare_bytes() -> None:
    names = {"name": Bounds(pa.array(["é", "ê"]), pa.array(["éz", "ëz"]), None, None, np.array([1, 1]))}
    assert prune_mask(parse_filter("name LIKE 'é%'", SCHEMA), names, 2).tolist() == [True, False]
    assert prune_mask(parse_filter("name NOT LIKE 'é%'", SCHEMA), names, 2).tolist() == [False, True]


def test_units_of_only_nan() -> None:
    five = pa.array([5])
    nan = {
        "f": Bounds(pa.nulls(1, pa.float64()), pa.nulls(1, pa.float64()), pa.array([0]), five, np.array([5]))
    }
    expected = {
        "f > 9": False,
        "NOT (f > 9)": True,
        "f != 5": True,
        "f IS NULL": False,
        "f IS NOT NULL": True,
        "NOT isnan(f)": False,
    }
    for sql, kept in expected.items():
        assert prune_mask(parse_filter(sql, SCHEMA), nan, 1).tolist() == [kept], sql


def test_no_units() -> None:
    none = {"x": Bounds(*(pa.array([], pa.int64()) for _ in range(4)), np.array([], np.int64))}
    for sql in ("x > 5", "x IN (1, 2, 3, 4, 5, 6)", "TRUE", "other = 1"):
        assert prune_mask(parse_filter(sql, SCHEMA), none, 0).tolist() == []


def test_a_million_units() -> None:
    n = 1_000_000
    low = np.arange(n)
    zero = pa.array(np.zeros(n, np.int64))
    many = {"x": Bounds(pa.array(low), pa.array(low + 1), zero, zero, np.full(n, 100))}
    assert prune_mask(parse_filter("x = 1000", SCHEMA), many, n).nonzero()[0].tolist() == [999, 1000]
    listed = ", ".join(str(i) for i in range(0, n, n // 100))
    assert prune_mask(parse_filter(f"x IN ({listed})", SCHEMA), many, n).sum() == 199
