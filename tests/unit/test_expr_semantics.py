"""Pyarrow expressions as SQL engines mean them: NaN equals itself and is the greatest, and null in a list is null."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import vectorlake as vl
from vectorlake.expr.semantics import Semantics

NAN = math.nan
VALUES = [None, NAN, -math.inf, -1.0, 0.0, 2.5, math.inf]
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip


def rank(value: float) -> float:
    """A number that is ordered as SQL orders the value."""
    return {math.inf: 1e9, -math.inf: -1e9}.get(value, 2e9 if math.isnan(value) else value)


@pytest.fixture(scope="module")
def table() -> vl.Table:
    pairs = [(a, b) for a in VALUES for b in VALUES]
    data = {"id": range(len(pairs)), "a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    kinds = {"id": pa.int64(), "a": pa.float64(), "b": pa.float32()}
    lake = vl.connect("memory://expr-semantics")
    made = lake.create_table("pairs", pa.schema(kinds))
    for start in range(0, len(pairs), 10):  # some fragments, so that their bounds are asked too
        made.append(pa.table({n: pa.array(list(data[n])[start : start + 10], kinds[n]) for n in data}))
    return made


def found(table: vl.Table, expression: pc.Expression) -> list[str]:
    dataset = table.scan().to_dataset(semantics="sql")
    rows = dataset.to_table(columns=["a", "b"], filter=expression).to_pylist()
    return sorted(repr((row["a"], row["b"])) for row in rows)  # as text, since NaN is not itself


def wanted(test: Callable[[Any, Any], bool | None]) -> list[str]:
    return sorted(repr((a, b)) for a in VALUES for b in VALUES if test(a, b) is True)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("negated", [False, True])
def test_columns_and_constants_compare_as_if_nan_were_the_greatest(
    table: vl.Table, op: str, *, negated: bool
) -> None:
    compare = OPERATORS[op]

    def test(a: Any, b: Any) -> bool | None:
        return None if a is None or b is None else compare(rank(a), rank(b)) is not negated

    def applied(left: Any, right: Any) -> pc.Expression:
        return ~compare(left, right) if negated else compare(left, right)

    assert found(table, applied(pc.field("a"), pc.field("b"))) == wanted(test)
    for constant in VALUES[1:]:
        assert found(table, applied(pc.field("a"), pc.scalar(constant))) == wanted(
            lambda a, _, c=constant: test(a, c)
        )


@pytest.mark.parametrize("values", [[0.0, 2.5], [NAN, 0.0], [None, 0.0], [], [None], [NAN, None]], ids=str)
@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()], ids=str)
def test_null_in_a_list_is_null(
    table: vl.Table, values: list[Any], kind: pa.DataType, *, negated: bool
) -> None:
    def test(a: Any, _: Any) -> bool | None:
        if a is None:
            return None
        inside = any(v is not None and rank(a) == rank(v) for v in values)
        return inside is not negated if inside or None not in values else None

    expression = pc.field("a").isin(pa.array(values, kind))
    assert found(table, ~expression if negated else expression) == wanted(test)


def test_arrow_means_what_pyarrow_does(table: vl.Table) -> None:
    expression = (pc.field("a") > 1) | ~pc.field("b").isin([0.0, 2.5])
    rows = table.to_arrow().filter(expression)["id"].to_pylist()
    assert table.to_dataset().to_table(columns=["id"], filter=expression)["id"].to_pylist() == rows


def test_an_unknown_name_is_refused(table: vl.Table) -> None:
    with pytest.raises(vl.InvalidInputError, match="semantics must be 'arrow' or 'sql'"):
        table.scan().to_dataset(semantics="postgres")
    assert Semantics.parse("sql") is Semantics.SQL
