"""Filters and expressions in SQL: what they mean, what they refuse, and how they are written back."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vectorlake.errors import InvalidInputError
from vectorlake.expr import bind, parse_expression, parse_filter

DAY = dt.date(2024, 10, 4)
EPOCH = dt.datetime(1970, 1, 1)
NOON = dt.datetime(2024, 1, 1, 12)
BATCH = pa.record_batch(
    {
        "a": pa.array([1, 2, None, 4], pa.int8()),
        "i": pa.array([1, 2, None, -4], pa.int64()),
        "u": pa.array([1, 2, None, 2**64 - 1], pa.uint64()),
        "f": pa.array([1.0, 0.1, None, math.nan], pa.float32()),
        "g": pa.array([1.0, 2.5, math.nan, -0.0], pa.float64()),
        "h": pa.array(np.array([0.5, 1.0, 2.0, 3.0], np.float16)),
        "price": pa.array([Decimal("1.00"), Decimal("2.50"), None, Decimal("-3.25")], pa.decimal128(10, 2)),
        "name": ["x", "yab", None, "abc"],
        "kind": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "view": pa.array(["u", "v", None, "u"], pa.string_view()),
        "flag": [True, False, None, True],
        "day": pa.array([dt.date(1970, 1, 1), DAY, None, dt.date(1969, 12, 31)]),
        "ts": pa.array([EPOCH, NOON, None, EPOCH - dt.timedelta(hours=1)], pa.timestamp("ms")),
        "tz": pa.array([0, 1_704_110_400, None, -3600], pa.timestamp("s", "Europe/Paris")),
        "clock": pa.array([dt.time(0), dt.time(12, 30), None, dt.time(23, 59, 59)], pa.time64("us")),
        "blob": [b"a", b"\xff", None, b""],
        "s": [{"b": 1, "c": {"d": "q"}}, {"b": 2, "c": None}, None, {"b": None, "c": {"d": "z"}}],
        "tags": [["p", "q"], [], None, ["q", None]],
        "vec": pa.array([[1.0, 2.0], None, None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "weird name": [1, 2, 3, 4],
        'q"t': [1, 2, 3, 4],
        "a.b": [1, 2, 3, 4],
        "date": [1, 2, 3, 4],
        "order": [1, 2, 3, 4],
    }
)
T, F, N = True, False, None

FILTERS: list[tuple[str, list[bool | None]]] = [
    ("a > 1", [F, T, N, T]),
    ("1 < a", [F, T, N, T]),
    ("a == 1", [T, F, N, F]),
    ("a <> 1", [F, T, N, T]),
    ("a > 1 AND name LIKE 'a%'", [F, F, N, T]),
    ("a > 3 OR g > 0", [T, T, N, T]),
    ("NULL AND flag", [N, F, N, N]),
    ("NULL OR flag", [T, N, N, T]),
    ("NOT flag", [F, T, N, F]),
    ("flag IS TRUE", [T, F, F, T]),
    ("flag IS NOT TRUE", [F, T, T, F]),
    ("flag IS NULL", [F, F, T, F]),
    ("flag = false", [F, T, N, F]),
    ("TRUE", [T, T, T, T]),
    ("NULL", [N, N, N, N]),
    # Constants that the column's type can't hold decide the comparison, exactly.
    ("a > 1000", [F, F, N, F]),
    ("NOT (a > 1000)", [T, T, N, T]),
    ("a != 1000", [T, T, N, T]),
    ("a >= -1000", [T, T, N, T]),
    ("a = 2.5", [F, F, N, F]),
    ("a < 2.5", [T, T, N, F]),
    ("a >= 1.5", [F, T, N, T]),
    ("a = 2.0", [F, T, N, F]),
    ("u = 18446744073709551615", [F, F, N, T]),
    ("u > i", [F, F, N, T]),
    ("i = 9223372036854775808", [F, F, N, F]),
    ("i < 1e30", [T, T, N, T]),
    ("price = 2.5", [F, T, N, F]),
    ("price = 2.501", [F, F, N, F]),
    ("price > 2.499", [F, T, N, F]),
    ("price < 1e20", [T, T, N, T]),
    ("f = 0.1", [F, T, N, F]),
    ("f < 1e300", [T, T, N, F]),
    ("CAST(f AS DOUBLE) = 0.1", [F, F, N, F]),
    ("h = 0.5", [T, F, F, F]),
    ("i > g", [F, F, N, F]),
    ("g = 0", [F, F, F, T]),
    ("g = -0.0", [F, F, F, T]),
    # NaN: false in every comparison but !=.
    ("g > 2", [F, T, F, F]),
    ("NOT (g > 2)", [T, F, T, T]),
    ("g != 1", [F, T, T, T]),
    ("g = g", [T, T, F, T]),
    ("g IN (1, 0)", [T, F, F, T]),
    ("g NOT IN (1, 0)", [F, T, T, F]),
    ("g = CAST('nan' AS DOUBLE)", [F, F, F, F]),
    ("isnan(g)", [F, F, T, F]),
    ("g BETWEEN 0 AND 2", [T, F, F, T]),
    ("a IN (1, 2.0, 2.5, 1000)", [T, T, N, F]),
    ("a IN (1, NULL)", [T, N, N, N]),
    ("a NOT IN (1, NULL)", [F, N, N, N]),
    ("a IN (1, i)", [T, T, N, F]),
    ("name IN ('x', 'abc')", [T, F, N, T]),
    ("a NOT BETWEEN 2 AND 3", [T, F, N, T]),
    ("a IS DISTINCT FROM 1", [F, T, T, T]),
    ("a IS NOT DISTINCT FROM i", [T, T, T, F]),
    ("a IS DISTINCT FROM NULL", [T, T, F, T]),
    ("name LIKE 'abc'", [F, F, N, T]),
    ("name LIKE '%b'", [F, T, N, F]),
    ("name NOT LIKE '%b%'", [T, F, N, F]),
    ("name LIKE '_b_'", [F, F, N, T]),
    ("name ILIKE 'A%'", [F, F, N, T]),
    ("name LIKE '!%' ESCAPE '!'", [F, F, N, F]),
    ("'a%' LIKE 'a\\%'", [F, F, F, F]),
    ("name > 'abb'", [T, T, N, T]),
    ("kind = 'u'", [T, F, N, T]),
    ("view >= 'v'", [F, T, N, F]),
    ("starts_with(name, 'y')", [F, T, N, F]),
    ("contains(name, 'b')", [F, T, N, T]),
    ("regexp_matches(name, '^a.c$')", [F, F, N, T]),
    ("length(name) = 3", [F, T, N, T]),
    ("day = DATE '2024-10-04'", [F, T, N, F]),
    ("day < '1970-01-01'", [F, F, N, T]),
    ("day > TIMESTAMP '1969-12-31 12:00:00'", [T, T, N, F]),
    ("day = TIMESTAMP '1969-12-31 12:00:00'", [F, F, N, F]),
    ("ts >= TIMESTAMP '2024-01-01'", [F, T, N, F]),
    ("ts >= '2024-01-01T12:00:00'", [F, T, N, F]),
    ("ts < TIMESTAMP '1970-01-01 00:00:00.0000005'", [T, F, N, T]),
    ("ts = TIMESTAMP '2024-01-01 12:00:00.0001'", [F, F, N, F]),
    ("ts >= '2024-01-01 14:00:00+02:00'", [F, T, N, F]),
    ("ts > day", [F, F, N, T]),
    ("tz = TIMESTAMPTZ '2024-01-01 13:00:00+01'", [F, T, N, F]),
    ("tz >= '2024-01-01 12:00:00'", [F, T, N, F]),
    ("tz = ts", [T, T, N, T]),
    ("hour(tz) = 13", [F, T, N, F]),
    ("clock > '12:00:00'", [F, T, N, T]),
    ("year(day) = 2024 AND month(day) = 10", [F, T, N, F]),
    ("blob = '\\xFF'", [F, T, N, F]),
    ("blob < 'b'", [T, F, N, T]),
    ("s.b = 1", [T, F, N, N]),
    ("s.c.d = 'q'", [T, N, N, F]),
    ("s.c IS NULL", [F, T, T, F]),
    ("s IS NOT NULL", [T, T, F, T]),
    ("s['b'] = 2", [F, T, N, N]),
    ("vec IS NOT NULL", [T, F, F, T]),
    ("vec[2] = 2", [T, N, N, F]),
    ("tags[1] = 'p'", [T, N, N, F]),
    ("tags[-1] IS NULL", [F, T, T, T]),
    ("list_contains(tags, 'q')", [T, F, N, T]),
    ("length(tags) = 2", [T, F, N, T]),
    ('"weird name" > 3', [F, F, F, T]),
    ('"q""t" > 3', [F, F, F, T]),
    ('"a.b" > 3', [F, F, F, T]),
    ('date > 3 AND "order" > 3', [F, F, F, T]),
    ("a / 0 > 1", [N, N, N, N]),
    ("-- all of them\n a > 0 /* yes */", [T, T, N, T]),
]


@pytest.mark.parametrize(("sql", "expected"), FILTERS, ids=[sql for sql, _ in FILTERS])
def test_filters(sql: str, expected: list[bool | None]) -> None:
    expression = parse_filter(sql, BATCH.schema)
    assert expression.evaluate(BATCH).to_pylist() == expected
    mask = expression.mask(BATCH)
    assert mask.null_count == 0
    assert mask.to_pylist() == [value is True for value in expected]
    assert parse_filter(expression.to_sql(), BATCH.schema) == expression
    assert pickle.loads(pickle.dumps(expression)) == expression
    assert expression.evaluate(BATCH.slice(1, 2)).to_pylist() == expected[1:3]
    assert expression.evaluate(BATCH.slice(0, 0)).to_pylist() == []


EXPRESSIONS: list[tuple[str, pa.DataType, list[Any]]] = [
    ("a", pa.int8(), [1, 2, None, 4]),
    ("a + 1", pa.int8(), [2, 3, None, 5]),
    ("a + 1000", pa.int64(), [1001, 1002, None, 1004]),
    ("a + i", pa.int64(), [2, 4, None, 0]),
    ("-a", pa.int8(), [-1, -2, None, -4]),
    ("a / 2", pa.float64(), [0.5, 1.0, None, 2.0]),
    ("a // 3", pa.int8(), [0, 0, None, 1]),
    ("-i % 3", pa.int64(), [-1, -2, None, 1]),
    ("a // 0", pa.int8(), [None] * 4),
    ("a % 0", pa.int8(), [None] * 4),
    ("f / f", pa.float32(), [1.0, 1.0, None, math.nan]),
    ("price * 2", pa.decimal128(21, 4), [Decimal("2.0000"), Decimal("5.0000"), None, Decimal("-6.5000")]),
    ("2 ** 3", pa.float64(), [8.0] * 4),
    ("name || '!'", pa.string(), ["x!", "yab!", None, "abc!"]),
    ("concat(name, '!')", pa.string(), ["x!", "yab!", "!", "abc!"]),
    ("upper(substr(name, 2))", pa.string(), ["", "AB", None, "BC"]),
    ("substr(name, -2, 1)", pa.string(), ["", "a", None, "b"]),
    ("trim('  a ')", pa.string(), ["a"] * 4),
    ("replace(name, 'a', 'bb')", pa.string(), ["x", "ybbb", None, "bbbc"]),
    ("coalesce(name, 'none')", pa.string(), ["x", "yab", "none", "abc"]),
    ("ifnull(a, 0)", pa.int8(), [1, 2, 0, 4]),
    ("coalesce(a, 2.5)", pa.float64(), [1.0, 2.0, 2.5, 4.0]),
    ("nullif(a, 1)", pa.int8(), [None, 2, None, 4]),
    ("greatest(a, i, 2)", pa.int64(), [2, 2, 2, 4]),
    ("least(a, i)", pa.int64(), [1, 2, None, -4]),
    ("CASE WHEN a > 1 THEN 'big' ELSE name END", pa.string(), ["x", "big", None, "big"]),
    ("CASE a WHEN 1 THEN 10 WHEN 2 THEN 2.5 END", pa.float64(), [10.0, 2.5, None, None]),
    ("if(flag, 1, 2)", pa.int64(), [1, 2, 2, 1]),
    ("round(g)", pa.float64(), [1.0, 3.0, math.nan, 0.0]),
    ("abs(price)", pa.decimal128(10, 2), [Decimal("1.00"), Decimal("2.50"), None, Decimal("3.25")]),
    ("g::DECIMAL(5, 1)", pa.decimal128(5, 1), None),
    ("price::INTEGER", pa.int32(), [1, 3, None, -3]),
    ("CAST(2.5 AS INTEGER)", pa.int32(), [2] * 4),
    ("CAST(a AS VARCHAR)", pa.string(), ["1", "2", None, "4"]),
    ("CAST('2024-01-01' AS DATE)", pa.date32(), [dt.date(2024, 1, 1)] * 4),
    ("ts::DATE", pa.date32(), [dt.date(1970, 1, 1), dt.date(2024, 1, 1), None, dt.date(1969, 12, 31)]),
    (
        "ts + INTERVAL 1 DAY",
        pa.timestamp("us"),
        [dt.datetime(1970, 1, 2), NOON + dt.timedelta(1), None, dt.datetime(1970, 1, 1, 23)],
    ),
    ("day - DATE '1970-01-01'", pa.int64(), [0, 20000, None, -1]),
    ("day + 1", pa.date32(), [dt.date(1970, 1, 2), DAY + dt.timedelta(1), None, dt.date(1970, 1, 1)]),
    (
        "date_trunc('month', ts)",
        pa.timestamp("ms"),
        [dt.datetime(1970, 1, 1), dt.datetime(2024, 1, 1), None, dt.datetime(1969, 12, 1)],
    ),
    ("extract(year FROM ts)", pa.int64(), [1970, 2024, None, 1969]),
    ("date_part('hour', ts)", pa.int64(), [0, 12, None, 23]),
    ("tags[2]", pa.string(), ["q", None, None, None]),
    ("s.c", pa.struct([("d", pa.string())]), [{"d": "q"}, None, None, {"d": "z"}]),
    ("1 + 1", pa.int64(), [2] * 4),
    ("'it''s'", pa.string(), ["it's"] * 4),
    ("18446744073709551615", pa.uint64(), [2**64 - 1] * 4),
    ("NULL", pa.null(), [None] * 4),
]


def same(left: list[Any], right: list[Any]) -> bool:
    return all(a == b or (a != a and b != b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(("sql", "data_type", "expected"), EXPRESSIONS, ids=[row[0] for row in EXPRESSIONS])
def test_expressions(sql: str, data_type: pa.DataType, expected: list[Any] | None) -> None:
    expression = parse_expression(sql, BATCH.schema)
    assert expression.type == data_type
    assert parse_expression(expression.to_sql(), BATCH.schema) == expression
    if expected is None:
        with pytest.raises(InvalidInputError, match="can't be computed on these rows"):
            expression.evaluate(BATCH)
        return
    values = expression.evaluate(BATCH)
    assert values.type == data_type
    assert same(values.to_pylist(), expected)


ERRORS = [
    ("a >", "something is missing"),
    ("a > 3 )", "syntax error in the filter"),
    ("(a > 3", r"Expecting \)"),
    ("name = 'x", "opened but not closed"),
    ("SELECT 1", "syntax error"),
    ("a > 3; flag", "not supported"),
    ("  ", "the filter is empty"),
    ("nam = 'x'", r"no column 'nam'; did you mean name\?"),
    ("Name = 'x'", "did you mean name\\? Names are case-sensitive"),
    ("zzz = 1", "The columns are: a, i, u"),
    ("s.z = 1", "s has no field 'z'; it has b, c"),
    ("name.b = 1", "no struct"),
    ("x.y.z = 1", "no column 'x'"),
    ("name > 3", r"name \(string\) with 3 \(number\).*'3'"),
    ("a > 'x'", r"a \(int8\) with 'x' \(string\).*without quotes"),
    ("flag = 1", r"flag \(bool\) with 1 \(number\).*NOT flag"),
    ("ts > 3", r"ts \(timestamp\[ms\]\)"),
    ("day = 'soon'", "'soon' is no date or time"),
    ("day = '2024-02-30'", "is no date or time"),
    ("vec = 3", r"vec \(fixed_size_list"),
    ("tags = tags", "can't be compared"),
    ("a = NULL", "IS NULL"),
    ("NULL != a", "IS NOT NULL"),
    ("a", r"must be true or false \(bool\), but this is a \(int8\)"),
    ("a AND flag", r"a \(int8\) is not"),
    ("name LIKE name", "constant string"),
    ("a LIKE 'x'", "LIKE takes a string"),
    ("name LIKE 'a!' ESCAPE '!'", "ends with its escape"),
    ("a + name > 1", r"\+ takes two numbers.*name \(string\)"),
    ("lower(a) = 'x'", r"lower takes a string, not a \(int8\)"),
    ("lower(name, name) = 'x'", "lower"),
    ("foo(a) = 1", r"function foo\(\) is not supported"),
    ("uper(name) = 'X'", "did you mean upper"),
    ("random() > 0.5", "not supported"),
    ("now() > ts", "not supported"),
    ("a IN (SELECT 1)", "subqueries are not supported"),
    ("EXISTS (SELECT 1)", "subqueries are not supported"),
    ("count(*) > 1", r"count\(\) are not supported"),
    ("sum(a) OVER () > 1", "window functions are not supported"),
    ("a = ?", "parameters are not supported"),
    ("s.* IS NULL", r"\* is not supported"),
    ("CAST('abc' AS INTEGER) = 1", "has no value"),
    ("CAST(a AS INTEGER[]) = 1", "not supported; the types are"),
    ("127::TINYINT + 1::TINYINT > a", "overflow"),
    ("coalesce(a, name) = 1", "values of one type"),
    ("CASE WHEN flag THEN 1 ELSE 'x' END = 1", "values of one type"),
    ("tags[a] = 'x'", "constant whole number"),
    ("ts > ts + INTERVAL 1 MONTH", "fixed length"),
    ("list_contains(tags, 3)", "can't contain 3"),
]


@pytest.mark.parametrize(("sql", "message"), ERRORS, ids=[sql for sql, _ in ERRORS])
def test_errors(sql: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_filter(sql, BATCH.schema)


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("a > 1 AND nam = 'x'", "nam"),
        ("a > 1 AND\n  flag AND name > 3", "name"),
        ("a > 1 ! 2", "!"),
        ("a > 1 AND foo(a + 1) = 2", "foo"),
        (" OR ".join(["a = 1"] * 200) + " OR oops = 2", "oops"),
    ],
)
def test_errors_show_the_place(sql: str, place: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(sql, BATCH.schema)
    lines = str(caught.value).splitlines()
    caret = next(i for i, line in enumerate(lines) if line.strip() == "^")
    column = lines[caret].index("^")
    assert lines[caret - 1][column:].startswith(place)
    assert len(lines[caret - 1]) < 200


def test_overflow_and_failing_casts_on_rows_are_errors() -> None:
    batch = pa.record_batch({"a": pa.array([127], pa.int8()), "name": ["x"]})
    for sql in ("a + 1 > 0", "CAST(name AS INTEGER) = 1", "CAST(a * 2.5 AS TINYINT) = 1"):
        with pytest.raises(InvalidInputError, match="can't be computed on these rows"):
            parse_filter(sql, batch.schema).evaluate(batch)
    # What is null does not overflow.
    empty = pa.record_batch({"a": pa.array([None], pa.int8())})
    assert parse_filter("a + 1 > 0", empty.schema).evaluate(empty).to_pylist() == [None]


@pytest.mark.parametrize(
    ("sql", "columns", "paths"),
    [
        ("a > 1 AND a < 3", {"a"}, {("a",)}),
        ("s.c.d = name", {"s", "name"}, {("s", "c", "d"), ("name",)}),
        ("s IS NULL OR s.b = 1", {"s"}, {("s",), ("s", "b")}),
        ("CASE WHEN flag THEN a ELSE i END = 1", {"flag", "a", "i"}, {("flag",), ("a",), ("i",)}),
        ("TRUE", set(), set()),
        ("a > 1000", {"a"}, {("a",)}),
    ],
)
def test_columns_come_from_the_tree(sql: str, columns: set[str], paths: set[tuple[str, ...]]) -> None:
    expression = parse_filter(sql, BATCH.schema)
    assert expression.columns() == columns
    assert expression.paths() == paths
    needed = BATCH.select([name for name in BATCH.schema.names if name in columns])
    assert expression.evaluate(needed).equals(expression.evaluate(BATCH))


def test_a_batch_without_the_column_is_named() -> None:
    with pytest.raises(InvalidInputError, match="no column 'a'"):
        parse_filter("a > 1", BATCH.schema).evaluate(BATCH.select(["name"]))


def test_conjuncts() -> None:
    expression = parse_filter("a > 1 AND (name = 'x' AND flag) AND (a = 1 OR flag)", BATCH.schema)
    assert [part.to_sql() for part in expression.conjuncts()] == [
        "a > 1",
        "name = 'x'",
        "flag",
        "(a = 1) OR flag",
    ]
    either = parse_filter("a = 1 OR flag", BATCH.schema)
    assert either.conjuncts() == [either]


def test_long_filters() -> None:
    many = " OR ".join(f"i = {n}" for n in range(3000))
    expression = parse_filter(many, BATCH.schema)
    assert expression.evaluate(BATCH).to_pylist() == [T, T, N, F]
    assert parse_filter(expression.to_sql(), BATCH.schema) == expression
    listed = parse_filter(f"name IN ({', '.join(repr(f'x{n}') for n in range(3000))}, 'x')", BATCH.schema)
    assert listed.evaluate(BATCH).to_pylist() == [T, F, N, F]
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        parse_filter("(" * 5000 + "flag" + ")" * 5000, BATCH.schema)


NAMES = ["date", "timestamp", "user", "left", "map", "select", "from", "Ä", "a b", '"', "1x"]


@pytest.mark.parametrize("name", NAMES)
def test_any_column_name_can_be_quoted(name: str) -> None:
    batch = pa.record_batch({name: [1, 2]})
    expression = parse_filter('"' + name.replace('"', '""') + '" > 1', batch.schema)
    assert expression.evaluate(batch).to_pylist() == [False, True]
    assert parse_filter(expression.to_sql(), batch.schema) == expression


def test_extension_columns_are_read_as_their_storage() -> None:
    batch = pa.record_batch(
        {"id": pa.array([b"a" * 16, None], pa.uuid()), "j": pa.array(['{"x": 1}', None], pa.json_())}
    )
    assert parse_filter("id IS NULL", batch.schema).evaluate(batch).to_pylist() == [False, True]
    assert parse_filter("contains(j, 'x')", batch.schema).evaluate(batch).to_pylist() == [True, None]
    same = "61616161-6161-6161-6161-616161616161"
    for constant, expected in ((same, True), ("a" * 16, True), ("a", False)):
        expression = parse_filter(f"id = '{constant}'", batch.schema)
        assert expression.evaluate(batch).to_pylist() == [expected, None]
        assert parse_filter(expression.to_sql(), batch.schema) == expression


def test_a_batch_without_columns_keeps_its_rows() -> None:
    batch = BATCH.select([])
    assert parse_filter("1 < 2", BATCH.schema).evaluate(batch).to_pylist() == [True] * 4


def test_bind() -> None:
    schema = BATCH.schema
    expression = parse_filter("a > 1", schema)
    assert bind(None, schema) is None
    assert bind(expression, schema) is expression
    assert bind("a > 1", schema) == expression
    assert bind(pa.compute.field("a") > 1, schema) == expression
    for wrong in (pa.compute.field("a"), "a", 3, True):
        with pytest.raises(InvalidInputError):
            bind(wrong, schema)  # type: ignore[arg-type]
