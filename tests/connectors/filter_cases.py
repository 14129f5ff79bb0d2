"""Values and conditions for tests that an engine's filter over a lake finds what its own tables give."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa

NAN, INF = math.nan, math.inf
DAY = dt.date(2024, 2, 29)
NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 500_000)

VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i": (pa.int64(), [-3, 0, 1, 2, 7, None, 2**62]),
    "t": (pa.int8(), [-128, 0, 1, 127, None]),
    "u": (pa.uint64(), [0, 5, 2**64 - 1, None]),
    "f": (pa.float64(), [-1.5, -0.0, 0.0, 2.5, 4.0, NAN, INF, -INF, None]),
    "g": (pa.float32(), [0.1, -0.0, 4.0, NAN, -INF, None]),
    "h": (pa.float16(), [0.5, -0.0, 4.0, NAN, INF, None]),
    "s": (pa.string(), ["", "a", "ab", "b", "Z", "é", None]),
    "b": (pa.bool_(), [True, False, None]),
    "d": (pa.date32(), [DAY, dt.date(1969, 7, 20), dt.date(2024, 3, 1), None]),
    "m": (pa.timestamp("ms"), [NOON, dt.datetime(1969, 7, 20), dt.datetime(2024, 3, 1), None]),
    "n": (pa.timestamp("us"), [NOON, NOON + dt.timedelta(microseconds=1), None]),
    "z": (
        pa.timestamp("us", "UTC"),
        [NOON.replace(tzinfo=dt.UTC), dt.datetime(2024, 3, 1, tzinfo=dt.UTC), None],
    ),
    "x": (pa.decimal128(10, 2), [Decimal("1.25"), Decimal("-7.00"), Decimal("0.00"), None]),
    "k": (pa.binary(), [b"", b"a", b"\xff\x00", None]),
    "st": (
        pa.struct([("a", pa.int32()), ("f", pa.float64()), ("in", pa.struct([("w", pa.string())]))]),
        [
            {"a": 1, "f": 2.5, "in": {"w": "a"}},
            {"a": None, "f": NAN, "in": None},
            {"a": 3, "f": None, "in": {"w": None}},
            None,
        ],
    ),
}

COMPARISONS = ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]


def rows() -> pa.Table:
    """Every value of every column with others beside it, in no particular order."""
    count = 96
    columns = {
        name: pa.array([values[(i * step + i // 7) % len(values)] for i in range(count)], kind)
        for step, (name, (kind, values)) in enumerate(VALUES.items(), start=1)
    }
    return pa.table({"id": range(count), **columns})


def conditions(literals: Mapping[str, Sequence[str]]) -> st.SearchStrategy[str]:
    """Any condition over comparisons, ranges and lists of the literals of each column."""

    def atom(column: str) -> st.SearchStrategy[str]:
        literal = st.sampled_from(literals[column])
        # In brackets, since DataFusion's parser takes what follows DISTINCT FROM as far as it can.
        compared = st.builds(
            lambda op, value: f"({column} {op} {value})", st.sampled_from(COMPARISONS), literal
        )
        member = st.builds(
            lambda no, values: f"{column} {no}IN ({', '.join(values)})",
            st.sampled_from(["", "NOT "]),
            st.lists(literal, min_size=1, max_size=4),
        )
        ranged = st.builds(lambda a, b: f"{column} BETWEEN {a} AND {b}", literal, literal)
        null = st.sampled_from([f"{column} IS NULL", f"{column} IS NOT NULL"])
        return st.one_of(compared, member, ranged, null)

    atoms = st.sampled_from(list(literals)).flatmap(atom)
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.builds(lambda a, b: f"({a} AND {b})", inner, inner),
            st.builds(lambda a, b: f"({a} OR {b})", inner, inner),
            st.builds(lambda a: f"NOT ({a})", inner),
        ),
        max_leaves=6,
    )
