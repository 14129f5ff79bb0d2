"""Finding rows by key equals comparing all rows, for keys of any types, deleted rows, small fragments and segments."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectorlake as vl
from vectorlake.table.keys import GivenKeys, find_keys

NUMBERS = itertools.count()
small = st.integers(-3, 12)
KINDS: list[tuple[pa.DataType, Any]] = [
    (pa.int8(), small),
    (pa.int64(), small | st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 9) | st.integers(2**64 - 4, 2**64 - 1)),
    (pa.string(), st.text("ab\0é", max_size=3)),
    (pa.large_string(), st.integers(0, 15).map("key-{:05}".format)),
    (pa.binary(), st.binary(max_size=2)),
    (pa.binary(16), small.map(lambda i: uuid.uuid5(uuid.NAMESPACE_OID, str(i)).bytes)),
    (pa.bool_(), st.booleans()),
    (pa.date32(), small.map(lambda i: dt.date(1970, 1, 10) + dt.timedelta(i * 7))),
    (
        pa.timestamp("us", "UTC"),
        small.map(lambda i: dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(0, i, i)),
    ),
    (pa.timestamp("ns"), small.map(lambda i: np.datetime64(i * 333, "ns"))),
    (pa.time64("us"), st.integers(0, 20).map(lambda i: dt.time(i, microsecond=i))),
    (pa.decimal128(20, 3), small.map(lambda i: Decimal(i * 250).scaleb(-3))),
    (pa.decimal256(50, 1), small.map(lambda i: Decimal(i * 10**30).scaleb(-1))),
]


@st.composite
def tables(
    draw: st.DrawFn,
) -> tuple[list[pa.Field], list[list[tuple[Any, ...]]], list[tuple[Any, ...]], list[int]]:
    """Key columns, keys by commit, keys to look for (some of them there), and which rows are deleted."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    key = st.tuples(*(values for _, values in kinds))
    keys = draw(st.lists(key, min_size=1, max_size=30, unique=True))
    cut = draw(st.integers(0, len(keys)))
    others = draw(st.lists(key, max_size=10, unique=True))
    wanted = list(dict.fromkeys([*draw(st.lists(st.sampled_from(keys), max_size=12, unique=True)), *others]))
    deleted = draw(st.lists(st.integers(0, len(keys) - 1), max_size=10, unique=True))
    fields = [pa.field(f"k{index}", kind) for index, (kind, _) in enumerate(kinds)]
    return fields, [keys[:cut], keys[cut:]], wanted, deleted


def columns_of(fields: Sequence[pa.Field], keys: Sequence[tuple[Any, ...]]) -> list[pa.Array]:
    return [pa.array([key[index] for key in keys], field.type) for index, field in enumerate(fields)]


@settings(max_examples=60, deadline=None)
@given(
    tables(),
    st.sampled_from([1, 8, 10**9]),
    st.booleans(),
    st.sampled_from([{}, {"write.fragment-rows": "7"}]),
)
def test_finding_keys_equals_comparing_all_rows(
    case: tuple[list[pa.Field], list[list[tuple[Any, ...]]], list[tuple[Any, ...]], list[int]],
    segment_rows: int,
    kept: bool,
    properties: dict[str, str],
) -> None:
    fields, commits, wanted, deleted = case
    lake = vl.connect(f"memory://keys-property-{next(NUMBERS)}")
    schema = pa.schema([*fields, pa.field("n", pa.int64())])
    names = [field.name for field in fields]
    with (
        patch("vectorlake.table.key_segments.SEGMENT_ROWS", segment_rows),
        patch("vectorlake.table.keys._MORSEL", 3),
        patch("vectorlake.table.keys.SEGMENT_ROWS", 10**6 if kept else 0),
    ):
        table = lake.create_table("t", schema, primary_key=names, properties=properties)
        number = 0
        for keys in commits:
            rows = pa.array(range(number, number + len(keys)), pa.int64())
            if keys:
                table.append(pa.Table.from_arrays([*columns_of(fields, keys), rows], schema=schema))
            number += len(keys)
        if deleted:
            table.delete(f"n IN ({', '.join(map(str, deleted))})")
        everything = [key for keys in commits for key in keys]
        live = {key: n for n, key in enumerate(everything) if n not in deleted}
        found = {}
        for match in find_keys(table.view, GivenKeys(columns_of(fields, wanted))):
            held = match.reader.take(table.view.select(["n"]), match.positions).column(0).to_pylist()
            assert len(held) == len(match.rows)
            for row, n in zip(match.rows.tolist(), held, strict=True):
                assert row not in found, "a live key is there once"
                found[row] = n
        assert found == {row: live[key] for row, key in enumerate(wanted) if key in live}


@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from([1, 10**9]), st.sampled_from([3, 10**6]), st.data())
def test_no_key_gets_into_a_table_twice(
    case: tuple[list[pa.Field], list[list[tuple[Any, ...]]], list[tuple[Any, ...]], list[int]],
    segment_rows: int,
    few: int,
    data: st.DataObject,
) -> None:
    fields, commits, wanted, _ = case
    lake = vl.connect(f"memory://keys-property-{next(NUMBERS)}")
    schema = pa.schema([field.with_nullable(False) for field in fields])
    with (
        patch("vectorlake.table.key_segments.SEGMENT_ROWS", segment_rows),
        patch("vectorlake.table.keys._BLOCK", few),
        patch("vectorlake.table.keys._VERIFIED", few),
    ):
        table = lake.create_table(
            "t", schema, primary_key=schema.names, properties={"write.fragment-rows": "5"}
        )

        def append(keys: Sequence[tuple[Any, ...]], to: vl.Table) -> None:
            to.append(pa.Table.from_arrays(columns_of(fields, keys), schema=schema))

        stale = lake.table("t")
        everything = [key for keys in commits for key in keys]
        again = data.draw(st.sampled_from(everything))
        with pytest.raises(vl.InvalidInputError, match="more than once"):
            append([*everything, again], table)
        for keys in commits:
            append(keys, table)
        fresh = [key for key in wanted if key not in everything]
        with pytest.raises(vl.AlreadyExistsError, match="in the table already"):
            append(data.draw(st.permutations([*fresh, again])), stale)
        append(fresh, stale)
        assert stale.refresh().count() == len(everything) + len(fresh)
