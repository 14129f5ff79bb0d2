"""What writers of the simulated world do: each operation with the check of its commit against the model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from world import KEYS, Check, Step, World, expect, plain

import vectorlake as vl

Made = tuple[Callable[[], object], Check]
Make = Callable[[World, vl.Table], Made]
OPERATIONS: dict[str, tuple[int, Callable[[str | None], bool], Make]] = {}
"""Name → (weight, on which lines, how to make one)."""


def everywhere(line: str | None) -> bool:
    return True


def on_main(line: str | None) -> bool:
    return line is None


def operation(weight: int, where: Callable[[str | None], bool] = everywhere) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        OPERATIONS[make.__name__] = (weight, where, make)
        return make

    return register


def draw(world: World, count: int, *, spare: int = 0) -> list[int]:
    return world.rng.sample(range(spare, spare + KEYS), count)


def some_rows(world: World, table: vl.Table, keys: list[int], columns: list[str]) -> list[dict[str, Any]]:
    known = [name for name in columns if name in table.schema.names]
    values = {"x": lambda: world.rng.randrange(100), "s": lambda: f"s{world.rng.randrange(9)}"}
    return [{"id": key, **{name: values[name]() for name in known}} for key in keys]


def as_data(rows: list[dict[str, Any]]) -> pa.Table:
    names = rows[0].keys()
    kinds = {"id": pa.int64(), "x": pa.int64(), "s": pa.string()}
    return pa.table({name: pa.array([row[name] for row in rows], kinds[name]) for name in names})


def values_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


def unchanged(step: Step) -> None:
    expect(step, plain(step.before))


@operation(5)
def append(world: World, table: vl.Table) -> Made:
    rows = some_rows(world, table, draw(world, world.rng.randrange(1, 4)), ["x", "s"])

    def check(step: Step) -> None:
        assert not step.before.keys() & {row["id"] for row in rows}, "an append doubled a key"
        expect(step, plain(step.before) | {row["id"]: values_of(row) for row in rows})

    return lambda: table.append(as_data(rows)), check


@operation(1)
def overwrite(world: World, table: vl.Table) -> Made:
    rows = some_rows(world, table, draw(world, 6), ["x", "s"])
    return lambda: table.overwrite(as_data(rows)), lambda step: expect(
        step, {row["id"]: values_of(row) for row in rows}
    )


@operation(3)
def delete(world: World, table: vl.Table) -> Made:
    divisor, rest = world.rng.choice([2, 5, 7]), world.rng.randrange(2)

    def check(step: Step) -> None:
        hit = {key for key in step.before if key % divisor == rest}
        optional = frozenset(key for key in hit if not step.settled(key))
        expect(step, {k: v for k, v in plain(step.before).items() if k not in hit}, optional)

    return lambda: table.delete(f"id % {divisor} = {rest}"), check


@operation(4)
def update(world: World, table: vl.Table) -> Made:
    divisor, mode = world.rng.choice([2, 3, 5]), world.rng.choice(["rows", "columns", "auto"])

    def check(step: Step) -> None:
        wanted = plain(step.before)
        hit = {key for key in wanted if key % divisor == 0}
        for key in hit:
            old = wanted[key].get("x")
            wanted[key] = {**wanted[key], "x": None if old is None else old + 1000}
        expect(step, wanted, frozenset(key for key in hit if not step.settled(key)))

    return lambda: table.update({"x": "x + 1000"}, f"id % {divisor} = 0", mode=mode), check


@operation(5)
def upsert(world: World, table: vl.Table) -> Made:
    columns = world.rng.choice([["x", "s"], ["x"], ["s"]])
    rows = some_rows(world, table, draw(world, world.rng.randrange(1, 5)), columns)
    mode = world.rng.choice(["rows", "columns", "auto"])

    def check(step: Step) -> None:
        wanted = plain(step.before)
        for row in rows:
            wanted[row["id"]] = {**wanted.get(row["id"], {}), **values_of(row)}
        expect(step, wanted)

    return lambda: table.upsert(as_data(rows), mode=mode), check


@operation(2)
def insert(world: World, table: vl.Table) -> Made:
    rows = some_rows(world, table, draw(world, 3), ["x"])

    def check(step: Step) -> None:
        expect(step, {row["id"]: values_of(row) for row in rows} | plain(step.before))

    return lambda: table.insert(as_data(rows)), check


@operation(2)
def merge(world: World, table: vl.Table) -> Made:
    rows = some_rows(world, table, draw(world, 4), ["x"])
    by_source = world.rng.random() < 0.2

    def check(step: Step) -> None:
        wanted, given = plain(step.before), {row["id"]: row.get("x") for row in rows}
        optional = set()
        for key, x in given.items():
            if key not in wanted:
                if x > 50:
                    wanted[key] = {"x": x}
            elif x < 20:
                del wanted[key]
            else:
                old = wanted[key].get("x")
                wanted[key]["x"] = None if old is None else old + x
        if by_source:
            for key in step.before.keys() - given.keys():
                if key % 11 == 3:
                    wanted.pop(key)
                    optional |= set() if step.settled(key) else {key}
        expect(step, wanted, frozenset(optional))

    def do() -> None:
        built = (
            table.merge(as_data(rows))
            .when_matched_delete(condition="source.x < 20")
            .when_matched_update({"x": "source.x + target.x"})
            .when_not_matched_insert(condition="source.x > 50")
        )
        if by_source:
            built = built.when_not_matched_by_source_delete(condition="id % 11 = 3")
        built.execute()

    return do, check


@operation(2)
def add_column(world: World, table: vl.Table) -> Made:
    world.counter += 1
    name = f"c{world.counter}"
    computed = world.rng.random() < 0.7

    def check(step: Step) -> None:
        wanted, optional = plain(step.before), set()
        for key, row in wanted.items():
            if computed and row.get("x") is not None:
                row[name] = row["x"] + key
                optional |= set() if step.settled(key) else {key}
        expect(step, wanted, frozenset(optional))

    if computed:
        return lambda: table.add_column(name, "x + id", type=pa.int64()), check
    return lambda: table.add_column(name, type=pa.int64()), check


@operation(2)
def backfill_column(world: World, table: vl.Table) -> Made:
    own = [name for name in table.schema.names if name.startswith("c")]
    chosen = world.rng.choice(own) if own else "x"
    number = table.snapshot.schema.field(chosen).id

    def check(step: Step) -> None:
        # Others may have renamed it meanwhile.
        (name,) = (field.name for field in step.snapshot.schema.fields if field.id == number)
        wanted, optional = plain(step.before), set()
        for key, row in wanted.items():
            if row.get(name) is None:
                row[name] = 7 * key
                optional |= set() if step.settled(key) else {key}
        expect(step, wanted, frozenset(optional))

    return lambda: table.backfill_column(chosen, "7 * id"), check


@operation(1)
def drop_column(world: World, table: vl.Table) -> Made:
    own = [name for name in table.schema.names if name.startswith("c")]
    if len(own) < 3:
        return set_properties(world, table)
    name = world.rng.choice(own)

    def check(step: Step) -> None:
        rows = plain(step.before).items()
        expect(step, {key: {n: v for n, v in row.items() if n != name} for key, row in rows})

    return lambda: table.drop_column(name), check


@operation(1)
def rename_column(world: World, table: vl.Table) -> Made:
    own = [name for name in table.schema.names if name.startswith("c")]
    if not own:
        return set_properties(world, table)
    world.counter += 1
    name, new = world.rng.choice(own), f"c{world.counter}"

    def check(step: Step) -> None:
        rows = plain(step.before).items()
        expect(step, {key: {new if n == name else n: v for n, v in row.items()} for key, row in rows})

    return lambda: table.rename_column(name, new), check


@operation(1)
def restore(world: World, table: vl.Table) -> Made:
    version = max(1, table.version - world.rng.randrange(1, 5))

    def check(step: Step) -> None:
        old = step.versions[step.snapshot.summary["restored_version"]]
        assert {k: (r.values, r.row_id) for k, r in old.items()} == {
            k: (r.values, r.row_id) for k, r in step.after.items()
        }

    return lambda: table.restore(version), check


@operation(1)
def set_properties(world: World, table: vl.Table) -> Made:
    value = str(world.rng.randrange(3))
    return lambda: table.set_properties({"owner": value}), unchanged


@operation(3)
def compact(world: World, table: vl.Table) -> Made:
    sort = [["x"], None, None][world.rng.randrange(3)]
    return lambda: table.compact(sort_by=sort) if sort else table.compact(), unchanged


@operation(1)
def rewrite_manifests(world: World, table: vl.Table) -> Made:
    return table.rewrite_manifests, unchanged


@operation(3)
def transaction(world: World, table: vl.Table) -> Made:
    world.counter += 1
    fresh = [10_000 + 3 * world.counter + i for i in range(3)]
    appended = some_rows(world, table, fresh, ["x", "s"])
    upserted = some_rows(world, table, [*draw(world, 2), fresh[0]], ["x"])

    def check(step: Step) -> None:
        wanted = plain(step.before) | {row["id"]: values_of(row) for row in appended}
        for row in upserted:
            wanted[row["id"]] = {**wanted.get(row["id"], {}), **values_of(row)}
        del wanted[fresh[1]]
        expect(step, wanted)

    def do() -> None:
        with table.transaction() as tx:
            tx.append(as_data(appended))
            tx.upsert(as_data(upserted))
            tx.delete(f"id = {fresh[1]}")
            assert tx.count(f"id >= {fresh[0]} AND id <= {fresh[2]}") == 2

    return do, check


@operation(1, on_main)
def tag(world: World, table: vl.Table) -> Made:
    name = f"tag{world.rng.randrange(4)}"
    if any(known.name == name for known in table.tags()):
        return lambda: table.delete_tag(name), unchanged
    return lambda: table.tag(name), unchanged


@operation(2, on_main)
def branch(world: World, table: vl.Table) -> Made:
    name = f"b{world.rng.randrange(2)}"
    if name in world.lines and world.rng.random() < 0.4:
        return lambda: table.delete_branch(name), unchanged
    return lambda: table.branch(name), unchanged


@operation(2, on_main)
def fast_forward(world: World, table: vl.Table) -> Made:
    name = f"b{world.rng.randrange(2)}"

    def check(step: Step) -> None:
        line = world.lines.get(name)
        version = step.snapshot.summary["branch_version"]
        if line is not None and version in line.versions:
            expect(step, plain(line.versions[version]))

    return lambda: table.fast_forward(name), check


@operation(1)
def expire(world: World, table: vl.Table) -> Made:
    return lambda: table.expire_snapshots(
        older_than=dt.timedelta(days=1), dry_run=world.rng.random() < 0.3
    ), unchanged


@operation(1)
def collect(world: World, table: vl.Table) -> Made:
    return lambda: table.collect_orphans(older_than=dt.timedelta(days=1)), unchanged


@operation(1)
def verify(world: World, table: vl.Table) -> Made:
    def do() -> None:
        assert table.verify() == []

    return do, unchanged
