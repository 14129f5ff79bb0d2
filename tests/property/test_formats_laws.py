"""What must hold of statistics, pruning, filters inside a format, and regrouped batches, for any data."""

from __future__ import annotations

import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectorlake.expr import parse_filter
from vectorlake.formats.batches import Regrouped, ascending, windowed
from vectorlake.formats.protocol import FileReader, FileSource, WriteOptions
from vectorlake.formats.registry import format_named
from vectorlake.formats.stats import BOUND_BYTES, Statistics, cut_above, cut_below
from vectorlake.store.local import LocalStore

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=90) | st.sampled_from(
    ["\U0010ffff" * 17, "\ud7ff" * 30, "\x7f" * 70, "\u07ff" * 40, "a" * 63 + "é"]
)
BYTES = st.binary(max_size=90) | st.sampled_from([b"\xff" * 64, b"\xff" * 65, b"a" * 63 + b"\xff\xff"])
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[object]]] = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float16": (pa.float16(), st.floats(width=16)),
    "float32": (pa.float32(), st.floats(width=32)),
    "float64": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), TEXT),
    "large_string": (pa.large_string(), TEXT),
    "binary": (pa.binary(), BYTES),
    "fixed_size_binary": (pa.binary(3), st.binary(min_size=3, max_size=3)),
    "date32": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))),
    "time64": (pa.time64("us"), st.times()),
    "duration": (pa.duration("us"), st.timedeltas(dt.timedelta(-(10**6)), dt.timedelta(10**6))),
    "decimal128": (pa.decimal128(12, 3), st.decimals(-(10**8), 10**8, places=3)),
    "decimal256": (pa.decimal256(50, 0), st.integers(-(10**45), 10**45).map(Decimal)),
}


@pytest.mark.parametrize("name", list(VALUES))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_bounds_contain_all_values(name: str, data: st.DataObject) -> None:
    kind, values = VALUES[name]
    batches = data.draw(st.lists(st.lists(st.none() | values, max_size=6), max_size=4))
    statistics = Statistics(pa.schema([("c", kind)]))
    flat = []
    for batch in batches:
        column = pa.array(
            np.array(batch, object) if pa.types.is_float16(kind) else batch, kind, from_pandas=False
        )
        flat.extend(column.to_pylist())
        statistics.add(pa.record_batch([column], ["c"]))
    result = statistics.result()["c"]
    present = [value for value in flat if value is not None]
    numbers = [value for value in present if value == value]  # NaN differs from itself
    assert result.null_count == len(flat) - len(present)
    if pa.types.is_floating(kind):
        assert result.nan_count == len(present) - len(numbers)
    if not numbers:
        assert result.min is None
        return
    assert result.min is not None
    assert result.min.type == kind
    assert result.min.as_py() <= min(numbers)
    if result.max is not None:
        assert result.max.type == kind
        assert result.max.as_py() >= max(numbers)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)):
        assert result.max is not None
        assert (result.min.as_py(), result.max.as_py()) == (min(numbers), max(numbers))
    if pa.types.is_floating(kind) and min(numbers) == 0 == max(numbers):
        assert (str(result.min.as_py()), str(result.max.as_py())) == ("-0.0", "0.0")


@settings(deadline=None)
@given(value=TEXT | BYTES)
def test_cut_bounds_are_short_and_on_their_sides(value: str | bytes) -> None:
    def raw(bound: str | bytes) -> bytes:
        return bound.encode() if isinstance(bound, str) else bound

    low, high = cut_below(value), cut_above(value)
    assert raw(low) <= raw(value)
    assert len(raw(low)) <= BOUND_BYTES
    assert type(low) is type(value)
    if high is not None:
        assert raw(high) >= raw(value)
        assert len(raw(high)) <= BOUND_BYTES
    else:
        assert len(raw(value)) > BOUND_BYTES


@given(sizes=st.lists(st.integers(0, 25), max_size=12), rows=st.integers(1, 12))
def test_regrouped_batches_are_full_but_the_last(sizes: list[int], rows: int) -> None:
    whole = pa.record_batch({"x": pa.array(range(sum(sizes)), pa.int32())})
    groups, start, out = Regrouped(rows), 0, []
    for size in sizes:
        out.extend(groups.push(whole.slice(start, size)))
        start += size
    assert all(batch.num_rows == rows for batch in out)
    out.extend(groups.rest())
    assert [value for batch in out for value in batch.column(0).to_pylist()] == list(range(sum(sizes)))
    assert all(0 < batch.num_rows <= rows for batch in out)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), data=st.data())
def test_windows_hold_just_the_rows_asked_for(sizes: list[int], data: st.DataObject) -> None:
    total, first = sum(sizes), 100
    batches, position = [], first
    for size in sizes:
        batches.append(pa.record_batch({"x": pa.array(range(position, position + size), pa.int64())}))
        position += size
    start = data.draw(st.integers(first, first + total))
    stop = data.draw(st.integers(start, first + total))
    most = data.draw(st.integers(1, 10))
    out = list(windowed(batches, first, start, stop, most))
    assert [value for batch in out for value in batch.column(0).to_pylist()] == list(range(start, stop))
    assert all(0 < batch.num_rows <= most for batch in out)


@given(positions=st.lists(st.integers(0, 30), max_size=20))
def test_ascending_positions_map_back(positions: list[int]) -> None:
    wanted = np.array(positions, np.int64)
    distinct, inverse = ascending(wanted)
    assert sorted(set(positions)) == distinct.tolist()
    np.testing.assert_array_equal(distinct if inverse is None else distinct[inverse], wanted)


# --- filters
# -------------------------------------------------------------------------------------------------------

SCHEMA = pa.schema(
    [
        ("i", pa.int32()),
        ("u", pa.uint8()),
        ("s", pa.string()),
        ("ls", pa.large_string()),
        ("b", pa.bool_()),
        ("f", pa.float64()),
        ("t", pa.timestamp("us", "UTC")),
        ("ns", pa.timestamp("ns")),
        ("s_", pa.timestamp("s")),
        ("d", pa.date32()),
    ]
)
DAYS = [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in range(1, 5)]
CELLS: dict[str, tuple[list[object], list[str]]] = {
    "i": ([-5, 0, 1, 2, 2**31 - 1, -(2**31)], ["0", "1", "-5", "1.5", "3000000000"]),
    "u": ([0, 1, 255], ["0", "1", "255", "-1"]),
    "s": (["", "a", "ab", "é", "z" * 20], ["''", "'a'", "'é'", "'zz'"]),
    "ls": (["", "a", "ab", "é"], ["''", "'a'", "'ab'"]),
    "b": ([True, False], ["true", "false"]),
    "f": ([0.0, -0.0, float("nan"), float("inf"), 1.5], ["0", "1.5", "-1"]),
    "t": (DAYS, ["TIMESTAMP '2024-01-02 00:00:00'", "TIMESTAMP '2024-01-01 12:00:00'"]),
    "ns": ([-3, 0, 1, 2], ["TIMESTAMP '1970-01-01 00:00:00.000000001'"]),
    "s_": (DAYS[:2], ["TIMESTAMP '2024-01-02 00:00:00'"]),
    "d": ([day.date() for day in DAYS], ["DATE '2024-01-02'"]),
}


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(SCHEMA.names))
    literal = st.sampled_from(CELLS[name][1])
    shape = draw(st.integers(0, 9))
    if shape == 0:
        return f"{name} is {draw(st.sampled_from(['', 'not ']))}null"
    if shape == 1:
        return f"{name} {draw(st.sampled_from(['', 'not ']))}in ({draw(literal)}, {draw(literal)})"
    return f"{name} {draw(st.sampled_from(['=', '<>', '<', '<=', '>', '>=']))} {draw(literal)}"


PREDICATES = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda part: f"(not {part})"),
    ),
    max_leaves=6,
)


def drawn_file(
    data: st.DataObject, format_name: str, folder: Path, groups: int
) -> tuple[FileReader, pa.RecordBatch]:
    rows = data.draw(st.sampled_from([1, 3, 40]))
    columns = [
        pa.array(
            data.draw(st.lists(st.none() | st.sampled_from(CELLS[f.name][0]), min_size=rows, max_size=rows)),
            f.type,
        )
        for f in SCHEMA
    ]
    batch = pa.record_batch(columns, schema=SCHEMA)
    writer = format_named(format_name).create(folder / "f", SCHEMA, WriteOptions(row_group_rows=groups))
    writer.write(batch)
    written = writer.close()
    return format_named(format_name).open(FileSource(LocalStore(folder), "f", written.size)), batch


def true_rows(predicate: str, batch: pa.RecordBatch) -> np.ndarray:
    mask = parse_filter(predicate, SCHEMA).evaluate(batch)
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_vortex_filters_as_we_do(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reader, batch = drawn_file(data, "vortex", Path(folder), 65_536)
        for predicate in data.draw(st.lists(PREDICATES, min_size=5, max_size=15)):
            start = data.draw(st.integers(0, batch.num_rows))
            stop = data.draw(st.integers(start, batch.num_rows))
            found = reader.matching(parse_filter(predicate, SCHEMA), start, stop)
            if found is not None:
                expected = true_rows(predicate, batch)
                assert found.dtype == np.int64
                assert found.tolist() == expected[(expected >= start) & (expected < stop)].tolist(), predicate


@pytest.mark.parametrize(
    "predicate", ["i = 1", "s < 'b'", "b", "t > TIMESTAMP '2024-01-02 00:00:00'", "ns is null"]
)
def test_vortex_takes_plain_filters_over(predicate: str, tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_arrays([pa.nulls(3, f.type) for f in SCHEMA], schema=SCHEMA)
    writer = format_named("vortex").create(tmp_path / "f", SCHEMA, WriteOptions())
    writer.write(batch)
    reader = format_named("vortex").open(FileSource(LocalStore(tmp_path), "f", writer.close().size))
    assert reader.matching(parse_filter(predicate, SCHEMA), 0, 3) is not None
    assert reader.matching(parse_filter(f"{predicate} or f > 1", SCHEMA), 0, 3) is None


@pytest.mark.parametrize("format_name", ["parquet", "lance", "vortex", "arrow"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_pruning_keeps_every_match(format_name: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reader, batch = drawn_file(data, format_name, Path(folder), 7)
        for predicate in data.draw(st.lists(PREDICATES, min_size=5, max_size=15)):
            start = data.draw(st.integers(0, batch.num_rows))
            stop = data.draw(st.integers(start, batch.num_rows))
            ranges = reader.prune(parse_filter(predicate, SCHEMA), start, stop)
            kept = np.zeros(batch.num_rows, bool)
            for begin, end in ranges:
                assert start <= begin < end <= stop
                assert not kept[begin:end].any()
                kept[begin:end] = True
            expected = true_rows(predicate, batch)
            assert kept[expected[(expected >= start) & (expected < stop)]].all(), predicate


def test_parquet_prunes_row_groups(tmp_path: Path) -> None:
    schema = pa.schema([("i", pa.int64())])
    writer = format_named("parquet").create(tmp_path / "f", schema, WriteOptions(row_group_rows=10))
    writer.write(pa.record_batch([pa.array(range(100))], schema=schema))
    reader = format_named("parquet").open(FileSource(LocalStore(tmp_path), "f", writer.close().size))
    assert reader.prune(parse_filter("i = 35", schema), 0, 100) == [(30, 40)]
    assert reader.prune(parse_filter("i < 15 or i >= 80", schema), 5, 95) == [(5, 20), (80, 95)]
    assert reader.prune(parse_filter("i > 100", schema), 0, 100) == []
    assert reader.prune(parse_filter("i > 30", schema), 0, 20) == []
