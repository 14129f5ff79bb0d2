"""Random filters on random rows: agreement with DuckDB and pyarrow, SQL round trips, and sound pruning."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from decimal import Decimal
from random import Random

import duckdb
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.expr import Bounds, bounds_key, from_pyarrow, parse_expression, parse_filter, prune_mask

SCHEMA = pa.schema(
    [
        ("i8", pa.int8()),
        ("i64", pa.int64()),
        ("u64", pa.uint64()),
        ("f32", pa.float32()),
        ("f64", pa.float64()),
        ("dec", pa.decimal128(6, 2)),
        ("s", pa.string()),
        ("big", pa.large_string()),
        ("flag", pa.bool_()),
        ("d", pa.date32()),
        ("ts", pa.timestamp("ms")),
        ("rec", pa.struct([("x", pa.int16()), ("y", pa.string())])),
        ("tags", pa.list_(pa.string())),
    ]
)

# Few distinct values, so that comparisons come out either way; quarters, so that arithmetic is exact.
WHOLE = [*range(-5, 6), -128, 127]
QUARTERS = [n / 4 for n in range(-20, 21)]
WORDS = ["", "a", "A", "b", "ab", "aB", "%", "_", "\\", "é", "aé", "éa", "a%", "a_b", "aab", "b\\"]
DAYS = [dt.date(1970, 1, 1) + dt.timedelta(n) for n in range(-3, 4)]
MOMENTS = [dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=n * 21_600_001) for n in range(-5, 6)]
POOLS: dict[str, list[object]] = {
    "i8": WHOLE,
    "i64": WHOLE,
    "u64": list(range(6)),
    "f32": QUARTERS,
    "f64": QUARTERS,
    "dec": [Decimal(n) / 100 for n in range(-500, 501, 20)],
    "s": WORDS,
    "big": WORDS,
    "flag": [True, False],
    "d": DAYS,
    "ts": MOMENTS,
    "rec": [{"x": x, "y": y} for x in (None, -128, -1, 0, 2, 127) for y in (None, "", "a", "Ab", "é")],
    "tags": [[], [None], ["a"], ["a", None, "b"], ["b", "a"], ["", "é", "ab"]],
}
INTEGERS = st.sampled_from(WHOLE)
FRACTIONS = st.sampled_from(QUARTERS)
TEXTS = st.sampled_from(WORDS) | st.text("aAb%_\\é", max_size=3)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def chosen(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


def joined(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda values: template.format(*values))


OPS = chosen("=", "!=", "<", "<=", ">", ">=")
INTEGER_TEXTS = INTEGERS.map(str) | chosen("1000", "-1000", "9223372036854775808")
NUMBER_TEXTS = INTEGER_TEXTS | FRACTIONS.map(str) | chosen("1.005", "-0.0")
NUMBER_COLUMNS = chosen("i8", "i64", "u64", "f32", "f64", "dec", "rec.x")
TEXT_TEXTS = TEXTS.map(quoted)
DATE_TEXTS = chosen(*(f"DATE '{day}'" for day in DAYS), *(f"TIMESTAMP '{moment}'" for moment in MOMENTS))
SMALL = chosen("i64", "f64", "CAST(i8 AS BIGINT)", "CAST(rec.x AS DOUBLE)")
NUMBERS = st.recursive(
    SMALL,
    lambda inner: st.one_of(
        joined("({} {} {})", inner, chosen("+", "-"), inner | FRACTIONS.map(str)),
        joined("({} * {})", inner, chosen("2", "0.5", "-1")),
        joined("({} / {})", inner, chosen("2", "-4")),
        joined("abs({})", inner),
        joined("coalesce({}, {})", inner, inner),
        joined("greatest({}, {})", inner, inner),
        joined("least({}, {})", inner, inner),
        joined("nullif({}, {})", inner, inner),
        joined("CASE WHEN {} {} {} THEN {} ELSE {} END", inner, OPS, inner, inner, inner),
    ),
    max_leaves=4,
)
STRINGS = st.recursive(
    chosen("s", "big", "rec.y"),
    lambda inner: st.one_of(
        joined("lower({})", inner),
        joined("({} || {})", inner, inner | TEXT_TEXTS),
        joined("substr({}, {}, {})", inner, chosen("0", "1", "2", "-2"), chosen("0", "1", "5")),
        joined("trim({})", inner),
        joined("coalesce({}, {})", inner, TEXT_TEXTS),
        joined("replace({}, {}, {})", inner, TEXTS.filter(bool).map(quoted), TEXT_TEXTS),
        joined("CASE {} WHEN {} THEN {} END", inner, TEXT_TEXTS, inner),
    ),
    max_leaves=3,
)
# What pruning looks into: columns beside constants, columns beside columns.
SIMPLE = st.one_of(
    joined("{} {} {}", NUMBER_COLUMNS, OPS, NUMBER_TEXTS),
    joined("{} {} {}", NUMBER_TEXTS, OPS, NUMBER_COLUMNS),
    joined("{} {} {}", NUMBER_COLUMNS, OPS, NUMBER_COLUMNS),
    joined("{} {} {}", chosen("s", "big", "rec.y"), OPS, TEXT_TEXTS),
    joined("s {} big", OPS),
    joined("{} {} {}", chosen("d", "ts"), OPS, DATE_TEXTS),
    joined("d {} ts", OPS),
    joined("{} IN ({}, {})", NUMBER_COLUMNS, NUMBER_TEXTS, NUMBER_TEXTS),
    joined(
        "{} NOT IN ({}, {}, {})", NUMBER_COLUMNS, NUMBER_TEXTS, NUMBER_TEXTS, INTEGER_TEXTS | st.just("NULL")
    ),
    joined("{} IN ({}, {})", chosen("s", "big", "rec.y"), TEXT_TEXTS, TEXT_TEXTS),
    joined("{} BETWEEN {} AND {}", NUMBER_COLUMNS, NUMBER_TEXTS, NUMBER_TEXTS),
    joined("{} IS {}NULL", chosen(*SCHEMA.names, "rec.x", "rec.y"), chosen("", "NOT ")),
    joined(
        "{} IS {}DISTINCT FROM {}", NUMBER_COLUMNS, chosen("", "NOT "), NUMBER_COLUMNS | INTEGERS.map(str)
    ),
    joined("{} {}LIKE {}", chosen("s", "big", "rec.y"), chosen("", "NOT "), TEXT_TEXTS),
    joined("starts_with({}, {})", chosen("s", "big"), TEXT_TEXTS),
    joined("flag {}", chosen("", "IS TRUE", "IS NOT FALSE", "= false")),
)
RICH = st.one_of(
    SIMPLE,
    joined("{} {} {}", NUMBERS, OPS, NUMBERS | NUMBER_TEXTS),
    joined("{} {} {}", STRINGS, OPS, STRINGS | TEXT_TEXTS),
    joined("{} {}({}, {})", st.just(""), chosen("contains", "ends_with"), STRINGS, TEXT_TEXTS),
    joined("length({}) {} {}", STRINGS | st.just("tags"), OPS, INTEGERS.map(str)),
    joined(
        "{} LIKE {} ESCAPE '!'",
        STRINGS,
        chosen("'a!%'", "'%!_b'", "'!a%'", "'!!_'", "'a%b!%!_'"),
    ),
    joined("tags[{}] {} {}", chosen("1", "2", "-1"), OPS, TEXT_TEXTS),
    joined("list_contains(tags, {})", TEXT_TEXTS),
    joined("{}({}) {} {}", chosen("year", "month", "day"), chosen("d", "ts"), OPS, chosen("1", "1969", "31")),
    joined("CAST({} AS DOUBLE) {} {}", NUMBERS, OPS, INTEGERS.map(str)),
    # Not of fractions that were computed: DuckDB's constants are decimals, which round another way.
    joined("CAST({} AS {}) {} {}", SMALL, chosen("INTEGER", "DECIMAL(12, 1)"), OPS, INTEGERS.map(str)),
)


def conditions(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            joined("({} AND {})", inner, inner),
            joined("({} OR {})", inner, inner),
            joined("NOT ({})", inner),
            joined("CASE WHEN {} THEN {} ELSE {} END", inner, inner, inner),
        ),
        max_leaves=4,
    )


def make_batch(seed: int, *, rows: int, nan: bool) -> pa.RecordBatch:
    """Up to `rows` random rows. Seeded, since drawing each cell would take most of the time."""
    random = Random(seed)
    count = random.randint(0, rows)
    columns = []
    for field in SCHEMA:
        pool = [*POOLS[field.name]]
        if nan and pa.types.is_floating(field.type):
            pool += [math.nan] * 20 + [math.inf, -0.0]
        nulls = random.choice([0.0, 0.2, 1.0]) if rows < 5 else 0.2
        # A unit of a few equal or neighbouring values is where bounds say most.
        pool = random.sample(pool, min(len(pool), random.choice([1, 2, 30])))
        columns.append(
            pa.array(
                [None if random.random() < nulls else random.choice(pool) for _ in range(count)], field.type
            )
        )
    return pa.record_batch(columns, schema=SCHEMA)


def batches(*, nan: bool = False, rows: int = 25) -> st.SearchStrategy[pa.RecordBatch]:
    return st.integers(0, 2**32).map(lambda seed: make_batch(seed, rows=rows, nan=nan))


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


RUNS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@RUNS
@given(batch=batches(), filters=st.lists(conditions(SIMPLE) | conditions(RICH), min_size=3, max_size=8))
def test_evaluates_as_duckdb(
    con: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, filters: list[str]
) -> None:
    con.register("t", pa.table(batch))
    for sql in filters:
        ours = parse_filter(sql, SCHEMA).evaluate(batch)
        theirs = [value for (value,) in con.execute(f"SELECT ({sql}) FROM t").fetchall()]
        assert ours.to_pylist() == theirs, sql


@RUNS
@given(batch=batches(), expressions=st.lists(NUMBERS | STRINGS, min_size=1, max_size=4))
def test_computes_as_duckdb(
    con: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, expressions: list[str]
) -> None:
    con.register("t", pa.table(batch))
    for sql in expressions:
        ours = parse_expression(sql, SCHEMA).evaluate(batch)
        theirs = [value for (value,) in con.execute(f"SELECT ({sql}) FROM t").fetchall()]
        assert ours.to_pylist() == theirs, sql


@RUNS
@given(batch=batches(nan=True), sql=conditions(RICH))
def test_sql_and_pyarrow_round_trips(batch: pa.RecordBatch, sql: str) -> None:
    expression = parse_filter(sql, SCHEMA)
    try:
        values = expression.evaluate(batch)
    except InvalidInputError:
        return  # an infinity or NaN that a cast refuses
    assert values.type == pa.bool_()
    assert len(values) == batch.num_rows
    again = parse_filter(expression.to_sql(), SCHEMA)
    assert again == expression
    assert hash(again) == hash(expression)
    try:
        arrow = expression.to_pyarrow()
    except UnsupportedError:
        return
    scanner = ds.Scanner.from_batches([batch], schema=SCHEMA, columns={"value": arrow})
    assert scanner.to_table().column(0).to_pylist() == values.to_pylist()
    assert from_pyarrow(arrow, SCHEMA).evaluate(batch).equals(values)
    needed = batch.select([name for name in SCHEMA.names if name in expression.columns()])
    assert expression.evaluate(needed).equals(values) or not needed.num_columns


def bounds_of(units: list[pa.RecordBatch], random: Random) -> dict[str, Bounds]:
    """Bounds of every scalar column, some widened, some forgotten."""
    paths = [(f.name,) for f in SCHEMA if not pa.types.is_nested(f.type)] + [("rec", "x"), ("rec", "y")]
    found = {}
    for path in paths:
        if random.random() < 0.1:
            continue
        lows, highs, nulls, nans = [], [], [], []
        for unit in units:
            array = (
                unit.column(path[0]) if len(path) == 1 else pc.struct_field(unit.column(path[0]), [path[1]])
            )
            nan = pc.fill_null(pc.is_nan(array), False) if pa.types.is_floating(array.type) else None
            kept = array.filter(pc.invert(nan)) if nan is not None else array
            low, high = (pc.min_max(kept)[key] for key in ("min", "max"))
            if pa.types.is_string(array.type) and random.random() < 0.6 and low.is_valid:
                low, high = pa.scalar(low.as_py()[:1]), pa.scalar(high.as_py() + "~")
            unknown = random.random() < 0.1
            lows.append(None if unknown else low.as_py())
            highs.append(None if unknown else high.as_py())
            nulls.append(None if random.random() < 0.1 else array.null_count)
            nans.append(None if nan is None or random.random() < 0.2 else pc.sum(nan).as_py() or 0)
        count = pa.int64()
        found[bounds_key(path)] = Bounds(
            pa.array(lows, array.type),
            pa.array(highs, array.type),
            pa.array(nulls, count) if random.random() < 0.6 else None,
            pa.array(nans, count) if random.random() < 0.6 else None,
            np.array([unit.num_rows for unit in units]),
        )
    return found


@settings(RUNS, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    units=st.lists(batches(nan=True, rows=3), min_size=1, max_size=6),
    filters=st.lists(conditions(SIMPLE), min_size=3, max_size=8),
)
def test_pruning_keeps_every_unit_with_a_match(
    seed: int, units: list[pa.RecordBatch], filters: list[str]
) -> None:
    bounds = bounds_of(units, Random(seed))
    for sql in filters:
        expression = parse_filter(sql, SCHEMA)
        kept = prune_mask(expression, bounds, len(units))
        assert kept.dtype == bool
        assert kept.shape == (len(units),)
        for unit, keep in zip(units, kept, strict=True):
            assert keep or not pc.any(expression.mask(unit)).as_py(), sql


@pytest.mark.parametrize("op", ["=", "<", "<=", ">", ">="])
@RUNS
@given(values=st.lists(st.integers(-50, 50), min_size=1, max_size=20), constant=st.integers(-60, 60))
def test_pruning_by_exact_bounds_of_single_values_is_exact(op: str, values: list[int], constant: int) -> None:
    array = pa.array(values)
    batch = pa.record_batch({"x": array})
    zero = pa.array([0] * len(values))
    bounds = {"x": Bounds(array, array, zero, zero, np.ones(len(values), np.int64))}
    for sql in (f"x {op} {constant}", f"NOT (x {op} {constant})", f"x {op} {constant} OR x IS NULL"):
        expression = parse_filter(sql, batch.schema)
        kept = prune_mask(expression, bounds, len(values))
        assert kept.tolist() == expression.evaluate(batch).to_pylist()
