"""What processes of the simulated world do with indexes."""

from __future__ import annotations

import random
from typing import Any, Final

from model import Line, Step, check_searches
from operations import Work, operation
from world import World

import vectorlake as vl

NAMES: Final = ("one", "two")
"""So few that operations meet."""
KINDS: Final[dict[str, dict[str, Any]]] = {
    "flat": {},
    "ivf": {"nlist": 2, "codes": "int8"},
    "graph": {},
}
QUIET: Final[dict[str, Any]] = {"threads": 1, "calibrate": False}


def known(table: vl.Table) -> list[str]:
    return [index.name for index in table.snapshot.indexes]


def segment_rows(world: World) -> int:
    return world.rng.choice([5, 1 << 20])


@operation(3)
def create_index(world: World, table: vl.Table, line: Line) -> Work:
    name, kind = world.rng.choice(NAMES), world.rng.choice(list(KINDS))
    metric, rows = world.rng.choice(["l2", "dot"]), segment_rows(world)

    def judge(step: Step) -> None:
        assert name in step.indexes_after, "an index was acknowledged, and is not there"

    def do() -> object:
        options = {**KINDS[kind], **QUIET}
        return table.create_index("v", kind, name=name, metric=metric, segment_rows=rows, **options)

    # Nothing to index yet: fewer vectors than partitions.
    refusals = (vl.AlreadyExistsError, *too_few(line, table))
    return Work(do, judge=judge, refusals=refusals, name=f"create index {name} {kind} {metric}")


@operation(4)
def optimize_indexes(world: World, table: vl.Table, line: Line) -> Work:
    dead_share, growth = world.rng.choice([0.0, 0.3, 1.0]), world.rng.choice([0.0, 2.0])
    dry_run, rows = world.rng.random() < 0.1, segment_rows(world)

    def do() -> object:
        return table.optimize_indexes(
            dead_share=dead_share, growth=growth, segment_rows=rows, dry_run=dry_run, threads=1
        )

    return Work(do, refusals=too_few(line, table))


@operation(1)
def rebuild_index(world: World, table: vl.Table, line: Line) -> Work:
    if not known(table):
        return create_index(world, table, line)
    name, rows = world.rng.choice(known(table)), segment_rows(world)

    def judge(step: Step) -> None:
        before, after = step.indexes_before[name], step.indexes_after[name]
        assert before[0] != after[0], "an index made anew has the model that it had"

    def do() -> object:
        return table.rebuild_index(name, segment_rows=rows, **QUIET)

    return Work(do, judge=judge, refusals=too_few(line, table), name=f"rebuild index {name}")


@operation(1)
def drop_index(world: World, table: vl.Table, line: Line) -> Work:
    if not known(table):
        return create_index(world, table, line)
    name = world.rng.choice(known(table))

    def judge(step: Step) -> None:
        assert name not in step.indexes_after

    return Work(lambda: table.drop_index(name), judge=judge, name=f"drop index {name}")


@operation(3)
def search(world: World, table: vl.Table, line: Line) -> Work:
    """A reader that pauses between its calls as writers do."""
    rows = line.versions[table.version]
    return Work(lambda: check_searches(table, rows, random.Random(world.rng.random())))


def too_few(line: Line, table: vl.Table) -> tuple[type[Exception], ...]:
    """What a build is refused with where there are hardly any vectors."""
    vectors = [row for row in line.versions[table.version].values() if row.values.get("v") is not None]
    return (vl.InvalidInputError,) if len(vectors) < 2 else ()
