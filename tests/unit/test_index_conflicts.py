"""Every cell of the specification's matrix of commits to indexes, run for real, and what is left to scan afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.plan.index_changes import SEGMENT_ROWS

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "format-v1.md"
SCHEMA = pa.schema([pa.field("id", pa.int64(), False), ("vec", vl.vector(4, "f16"))])
NUMBERS = itertools.count()


def vectors(*ids: int) -> list[list[float]]:
    return np.random.default_rng(sum(ids)).integers(-9, 9, (len(ids), 4)).astype(float).tolist()


OPERATIONS: dict[str, Callable[[vl.Table], object]] = {
    "create-index": lambda t: t.create_index("vec", "flat", name="i"),
    "rebuild-index": lambda t: t.rebuild_index("i"),
    "optimize-index": lambda t: t.optimize_indexes("i"),
    "drop-index": lambda t: t.drop_index("i"),
    "append": lambda t: t.append({"id": [50], "vec": vectors(50)}),
    "upsert": lambda t: t.upsert({"id": [1, 51], "vec": vectors(1, 51)}),
    "compact": lambda t: t.compact(deleted_share=0),
    "rename-column": lambda t: t.rename_column("vec", "embedding"),
    "drop-column": lambda t: t.drop_column("vec"),
    "alter-column": lambda t: t.alter_column("vec", type=vl.vector(4, "f32")),
    "restore": lambda t: t.restore(2),
    "overwrite": lambda t: t.overwrite({"id": [1, 52], "vec": vectors(1, 52)}),
}


def matrix() -> list[tuple[str, str, str]]:
    section = SPEC.read_text().split("### Conflicts of commits to indexes", 1)[1].split("\n##", 1)[0]
    lines = [line.strip()[1:-1].split("|") for line in section.splitlines() if line.startswith("|")]
    header = [cell.strip() for cell in lines[0]][1:]
    rows = [[cell.strip() for cell in line] for line in lines[2:]]
    names = dict(row[0].split(" ", 1) for row in rows)
    return [
        (names[row[0][0]], names[letter], cell)
        for row in rows
        for letter, cell in zip(header, row[1:], strict=True)
    ]


def make() -> vl.Lake:
    lake = vl.connect(f"memory://index-conflicts-{next(NUMBERS)}")
    table = lake.create_table("t", SCHEMA, primary_key=["id"])
    table.append({"id": [0, 1, 2], "vec": vectors(0, 1, 2)})
    table.append({"id": [3, 4, 5], "vec": vectors(3, 4, 5)})
    table.delete("id = 4")
    return lake


CELLS = [cell for cell in matrix() if cell[2]]


def test_matrix_is_whole() -> None:
    assert {mine for mine, _, _ in matrix()} == OPERATIONS.keys()
    assert {cell for _, _, cell in matrix()} == {"", "·", "C"}


@pytest.mark.parametrize(("mine", "theirs", "cell"), CELLS, ids=[f"{m}-{t}" for m, t, _ in CELLS])
def test_cell(mine: str, theirs: str, cell: str) -> None:
    lake = make()
    if "create-index" not in (mine, theirs):
        table = lake.table("t")
        table.create_index("vec", "flat", name="i")
        table.append({"id": [6], "vec": vectors(6)})  # something to optimize
    late, early = lake.table("t"), lake.table("t")
    OPERATIONS[theirs](early)
    before = lake.table("t").version
    if cell == "C":
        with pytest.raises(vl.ConflictError, match="emptied" if theirs == "overwrite" else None):
            OPERATIONS[mine](late)
        assert lake.table("t").version == before
        return
    OPERATIONS[mine](late)
    after = lake.table("t")
    for info in after.indexes():
        assert not info.faults
        assert info.covered_rows + info.uncovered_rows == after.count()
    after.optimize_indexes(segment_rows=SEGMENT_ROWS)
    assert all(info.uncovered_rows == 0 for info in after.indexes())
