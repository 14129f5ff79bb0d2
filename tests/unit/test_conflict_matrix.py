"""Every cell of the specification's conflict matrix, run for real: one writer commits, another one was prepared before.

The matrix is read from docs/spec/format-v1.md, so that the text can't say what the code doesn't do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.store.open import open_store

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "format-v1.md"
SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), False), ("x", pa.int64()), ("y", pa.string()), ("z", pa.int64())]
)
FORMATS = {"write.scalar-format": "arrow", "write.vector-format": "arrow"}
NUMBERS = itertools.count()

# Each operation meets the others as closely as it can: the same rows, the same columns, the same property.
OPERATIONS: dict[str, Callable[[vl.Table, int], object]] = {
    "append": lambda t, n: t.append({"id": [100 + n], "x": [n], "y": ["new"]}),
    "append the same key": lambda t, n: t.append({"id": [50], "x": [n]}),
    "overwrite": lambda t, n: t.overwrite({"id": [1, 200 + n], "x": [n, n]}),
    "delete": lambda t, n: t.delete("id = 1"),
    "update": lambda t, n: t.update({"x": f"x + {n}"}, where="id = 1", mode="rows"),
    "update in place": lambda t, n: t.update({"x": f"x + {n}"}, where="id = 1", mode="columns"),
    "upsert": lambda t, n: t.upsert({"id": [1, 50], "x": [n, n], "y": ["a", "b"], "z": [1, 1]}),
    "partial upsert": lambda t, n: t.upsert({"id": [1, 50], "x": [n, n]}),
    "insert": lambda t, n: t.insert({"id": [1, 50], "x": [n, n]}),
    "add-column": lambda t, n: t.add_column("w", "x * 2"),
    "drop-column": lambda t, n: t.drop_column("x"),
    "rename-column": lambda t, n: t.rename_column("x", f"x{n}"),
    "backfill-column": lambda t, n: t.backfill_column("z", f"{n}"),
    "compact": lambda t, n: t.compact(),
    "cluster": lambda t, n: t.compact(sort_by=["y"]),
    "restore": lambda t, n: t.restore(1),
    "set-properties": lambda t, n: t.set_properties({"owner": str(n)}),
    "tag": lambda t, n: t.tag(f"tag-{n}", version=1),
}


def matrix() -> list[tuple[str, str, str]]:
    """(mine, theirs, cell) of the table under "Conflicts"."""
    section = SPEC.read_text().split("### Conflicts", 1)[1].split("\n##", 1)[0]
    lines = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    header = [cell.strip() for cell in lines[0]][1:]
    cells = []
    for line in lines[2:]:
        mine, *rest = (cell.strip() for cell in line)
        cells += [(mine, theirs, cell) for theirs, cell in zip(header, rest, strict=True)]
    return cells


def numbered_names() -> dict[str, str]:
    """The matrix heads its columns by letters; its rows say which letter is which operation."""
    return {name.split(" ", 1)[0]: name.split(" ", 1)[1] for name, _, _ in matrix()}


@cache
def made() -> vl.Lake:
    """What every cell begins with, to be copied."""
    lake = vl.connect(f"memory://conflicts-{next(NUMBERS)}")
    data = {"id": [0, 1, 2], "x": [1, 2, 3], "y": ["c", "b", "a"], "z": [None, 7, None]}
    table = lake.create_table("t", pa.table(data, schema=SCHEMA), primary_key=["id"], properties=FORMATS)
    table.append({"id": [3, 4, 5], "x": [4, 5, 6], "y": ["a", "b", "c"]})
    table.delete("id = 4")
    return lake


def copy_of(lake: vl.Lake) -> vl.Lake:
    uri = f"memory://conflicts-{next(NUMBERS)}"
    source, target = open_store(lake.uri), open_store(uri)
    for info in source.list():
        target.put(info.path, source.get(info.path))
    return vl.connect(uri)


def contents(table: vl.Table) -> tuple[object, ...]:
    found = table.to_arrow().sort_by("id")
    tags = [tag.name for tag in table.tags()]
    return found.schema.names, found.to_pylist(), dict(table.properties), tags


CELLS = matrix()


def test_the_matrix_is_complete() -> None:
    names = numbered_names()
    assert set(names.values()) == set(OPERATIONS)
    assert len(CELLS) == len(OPERATIONS) ** 2
    assert {cell for _, _, cell in CELLS} <= {"·", "F", "E", "S", "C", "K"}
    assert all(re.fullmatch("[a-z]", letter) for letter in names)


@pytest.mark.parametrize(("mine", "theirs", "cell"), CELLS, ids=lambda value: value.replace(" ", "-"))
def test_cell(mine: str, theirs: str, cell: str) -> None:
    ours, others = OPERATIONS[mine.split(" ", 1)[1]], OPERATIONS[numbered_names()[theirs]]
    lake = copy_of(made())
    first, second = lake.table("t"), lake.table("t")
    others(second, 1)
    after_theirs = contents(second)
    row_ids = ids_by_key(second)
    if cell in ("C", "K"):
        with pytest.raises(vl.ConflictError if cell == "C" else vl.AlreadyExistsError):
            ours(first, 2)
        assert contents(lake.table("t")) == after_theirs, "a refused operation left something"
        return
    serial = copy_of(lake).table("t")
    ours(first, 2)
    final = lake.table("t")
    assert final.verify() == []
    assert len(set(final.scan(columns=["id"]).to_arrow()["id"].to_pylist())) == final.count()
    if cell == "S":
        if mine.endswith("overwrite"):
            assert set(ids_by_key(final)) == {1, 202}
            return
        # Mine covers what it saw: it equals the serial order but for the values of what theirs brought.
        assert final.count() >= second.count() - 1
        known = {key: row for key, row in ids_by_key(final).items() if key in row_ids}
        assert known.items() <= row_ids.items()
        return
    ours(serial, 2)
    assert contents(final) == contents(serial), "not as if one had come after the other"
    assert ids_by_key(final).keys() == ids_by_key(serial).keys()


def ids_by_key(table: vl.Table) -> dict[int, int]:
    found = table.scan(columns=["id", "_row_id"]).to_arrow()
    return dict(zip(found["id"].to_pylist(), found["_row_id"].to_pylist(), strict=True))
