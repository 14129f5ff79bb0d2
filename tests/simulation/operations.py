"""What the processes of the simulated world do: each operation with what it makes of the rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from model import Apply, Line, Step, Values, plain, rows_of, unchanged
from world import World

import vectorlake as vl

KEYS = 24
"""Keys are drawn from so few that operations meet."""
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Work:
    """One operation that is ready to be done."""

    do: Callable[[], object]
    apply: Apply = unchanged
    judge: Callable[[Step], None] | None = None
    refusals: tuple[type[Exception], ...] = ()
    """Errors that it may end with though nobody else did anything."""
    name: str = ""


Make = Callable[[World, vl.Table, Line], Work]


@dataclass(frozen=True)
class Kind:
    """An operation that may be drawn."""

    name: str
    weight: int
    main_only: bool
    build: Make = field(repr=False)

    def make(self, world: World, table: vl.Table, line: Line) -> Work:
        work = self.build(world, table, line)
        return Work(work.do, work.apply, work.judge, work.refusals, work.name or self.name)


OPERATIONS: list[Kind] = []


def operation(weight: int, *, main_only: bool = False) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        OPERATIONS.append(Kind(make.__name__, weight, main_only, make))
        return make

    return register


# --- what is drawn ---


def some_rows(world: World, keys: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    values = {
        "x": lambda: world.rng.randrange(100),
        "s": lambda: f"s{world.rng.randrange(9)}",
        "v": lambda: some_vector(world),
    }
    return [{"id": key, **{name: values[name]() for name in columns}} for key in keys]


def some_vector(world: World) -> list[float] | None:
    """Whole numbers, so that distances are exact; few of them, so that many rows are equally far."""
    return None if world.rng.random() < 0.1 else [float(world.rng.randrange(-3, 4)) for _ in range(4)]


def some_keys(world: World, count: int) -> list[int]:
    return world.rng.sample(range(KEYS), count)


def fresh_keys(world: World, count: int) -> list[int]:
    """Keys that no other operation draws."""
    world.counter += count
    return [10_000 + world.counter - i for i in range(count)]


def fresh_name(world: World) -> str:
    world.counter += 1
    return f"c{world.counter}"


def own_columns(table: vl.Table) -> list[str]:
    return [name for name in table.schema.names if name.startswith("c")]


def as_data(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {"id": pa.int64(), "x": pa.int64(), "s": pa.string(), "v": vl.vector(4)}
    return pa.table({name: pa.array([row[name] for row in rows], kinds[name]) for name in rows[0]})


def values_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


# --- rows ---


def appending(table: vl.Table, rows: list[dict[str, Any]]) -> Work:
    def apply(held: Values, step: Step) -> set[int]:
        assert not held.keys() & {row["id"] for row in rows}, "an append doubled a key"
        held.update({row["id"]: values_of(row) for row in rows})
        return set()

    return Work(lambda: table.append(as_data(rows)), apply, refusals=(vl.AlreadyExistsError,))


@operation(6)
def append(world: World, table: vl.Table, line: Line) -> Work:
    held = line.versions[table.version].keys()
    free = [key for key in range(KEYS) if key not in held]
    keys = some_keys(world, 2) if len(free) < 4 else world.rng.sample(free, world.rng.randrange(1, 5))
    return appending(table, some_rows(world, keys, ["x", "s", "v"]))


@operation(1)
def overwrite(world: World, table: vl.Table, line: Line) -> Work:
    rows = some_rows(world, some_keys(world, 6), ["x", "s", "v"])

    def apply(held: Values, step: Step) -> set[int]:
        held.clear()
        held.update({row["id"]: values_of(row) for row in rows})
        return set()

    return Work(lambda: table.overwrite(as_data(rows)), apply)


@operation(4)
def delete(world: World, table: vl.Table, line: Line) -> Work:
    divisor, rest = world.rng.choice([2, 5, 7, 11]), world.rng.randrange(2)

    def apply(held: Values, step: Step) -> set[int]:
        hit = {key for key in held if key % divisor == rest}
        for key in hit:
            del held[key]
        return step.unsettled(hit)

    return Work(lambda: table.delete(f"id % {divisor} = {rest}"), apply)


@operation(1)
def delete_by_value(world: World, table: vl.Table, line: Line) -> Work:
    least = world.rng.randrange(60, 100)

    def apply(held: Values, step: Step) -> set[int]:
        hit = {key for key, row in held.items() if row.get("x") is not None and row["x"] >= least}
        for key in hit:
            del held[key]
        return step.unsettled(hit)

    return Work(lambda: table.delete(f"x >= {least}"), apply)


@operation(5)
def update(world: World, table: vl.Table, line: Line) -> Work:
    divisor, mode = world.rng.choice([2, 3, 5]), world.rng.choice(["rows", "columns", "auto"])

    def apply(held: Values, step: Step) -> set[int]:
        hit = {key for key in held if key % divisor == 0}
        for key in hit:
            old = held[key].get("x")
            held[key]["x"] = None if old is None else old + 1000
        return step.unsettled(hit)

    return Work(lambda: table.update({"x": "x + 1000"}, f"id % {divisor} = 0", mode=mode), apply)


@operation(6)
def upsert(world: World, table: vl.Table, line: Line) -> Work:
    columns = world.rng.choice([["x", "s", "v"], ["x"], ["s"], ["v"]])
    rows = some_rows(world, some_keys(world, world.rng.randrange(1, 5)), columns)
    mode = world.rng.choice(["rows", "columns", "auto"])

    def apply(held: Values, step: Step) -> set[int]:
        for row in rows:
            held[row["id"]] = {**held.get(row["id"], {}), **values_of(row)}
        return set()

    return Work(lambda: table.upsert(as_data(rows), mode=mode), apply)


@operation(2)
def insert(world: World, table: vl.Table, line: Line) -> Work:
    rows = some_rows(world, some_keys(world, 3), ["x"])

    def apply(held: Values, step: Step) -> set[int]:
        for row in rows:
            held.setdefault(row["id"], values_of(row))
        return set()

    return Work(lambda: table.insert(as_data(rows)), apply)


@operation(3)
def merge(world: World, table: vl.Table, line: Line) -> Work:
    rows = some_rows(world, some_keys(world, 4), ["x"])
    by_source = world.rng.random() < 0.3
    mode = world.rng.choice(["rows", "columns", "auto"])

    def apply(held: Values, step: Step) -> set[int]:
        given = {row["id"]: row["x"] for row in rows}
        others = {key for key in held.keys() - given.keys() if key % 11 == 3} if by_source else set()
        for key, x in given.items():
            if key not in held:
                if x > 50:
                    held[key] = {"x": x}
            elif x < 20:
                del held[key]
            else:
                old = held[key].get("x")
                held[key]["x"] = None if old is None else old + x
        for key in others:
            del held[key]
        return step.unsettled(others)

    def do() -> object:
        built = (
            table.merge(as_data(rows), mode=mode)
            .when_matched_delete(condition="source.x < 20")
            .when_matched_update({"x": "source.x + target.x"})
            .when_not_matched_insert(condition="source.x > 50")
        )
        if by_source:
            built = built.when_not_matched_by_source_delete(condition="id % 11 = 3")
        return built.execute()

    return Work(do, apply)


# --- columns ---


@operation(2)
def add_column(world: World, table: vl.Table, line: Line) -> Work:
    name = fresh_name(world)
    if world.rng.random() < 0.3:
        return Work(lambda: table.add_column(name, type=pa.int32()))

    def apply(held: Values, step: Step) -> set[int]:
        hit = {key for key, row in held.items() if row.get("x") is not None}
        for key in hit:
            held[key][name] = held[key]["x"] + key
        return step.unsettled(hit)

    return Work(lambda: table.add_column(name, "x + id", type=pa.int64()), apply)


@operation(2)
def backfill_column(world: World, table: vl.Table, line: Line) -> Work:
    name = world.rng.choice([*own_columns(table), "x"])
    every = world.rng.random() < 0.3
    field_id = table.snapshot.schema.field(name).id

    def apply(held: Values, step: Step) -> set[int]:
        name = next(field.name for field in step.snapshot.schema.fields if field.id == field_id)
        hit = {key for key, row in held.items() if every or row.get(name) is None}
        for key in hit:
            held[key][name] = 7 * key
        return step.unsettled(hit)

    return Work(lambda: table.backfill_column(name, "7 * id", rows="all" if every else "missing"), apply)


@operation(1)
def drop_column(world: World, table: vl.Table, line: Line) -> Work:
    own = own_columns(table)
    if len(own) < 3:
        return replace(add_column(world, table, line), name="add_column")
    name = world.rng.choice(own)

    def apply(held: Values, step: Step) -> set[int]:
        for row in held.values():
            row.pop(name, None)
        return set()

    return Work(lambda: table.drop_column(name), apply)


@operation(1)
def rename_column(world: World, table: vl.Table, line: Line) -> Work:
    own = own_columns(table)
    if not own:
        return replace(add_column(world, table, line), name="add_column")
    name, new = world.rng.choice(own), fresh_name(world)

    def apply(held: Values, step: Step) -> set[int]:
        for row in held.values():
            row[new] = row.pop(name, None)
        return set()

    return Work(lambda: table.rename_column(name, new), apply)


@operation(1)
def widen_column(world: World, table: vl.Table, line: Line) -> Work:
    narrow = [name for name in own_columns(table) if table.schema.field(name).type == pa.int32()]
    if not narrow:
        return replace(add_column(world, table, line), name="add_column")
    name = world.rng.choice(narrow)
    return Work(lambda: table.alter_column(name, type=pa.int64()))


@operation(1)
def reorder_columns(world: World, table: vl.Table, line: Line) -> Work:
    names = list(table.schema.names)
    world.rng.shuffle(names)
    return Work(lambda: table.reorder_columns(names))


# --- versions ---


@operation(2)
def restore(world: World, table: vl.Table, line: Line) -> Work:
    known = [version for version in world.live_versions(line) if version <= table.version]
    version = world.rng.choice(known or [table.version])

    def apply(held: Values, step: Step) -> set[int]:
        held.clear()
        held.update(plain(step.versions[version]))
        return set()

    def judge(step: Step) -> None:
        old = step.versions[version]
        assert {key: row.row_id for key, row in old.items()} == {
            key: row.row_id for key, row in step.after.items()
        }, "restored rows have other row ids"

    return Work(lambda: table.restore(version), apply, judge)


@operation(1)
def set_properties(world: World, table: vl.Table, line: Line) -> Work:
    value = str(world.rng.randrange(3))
    return Work(lambda: table.set_properties({"owner": value}))


@operation(2)
def tag(world: World, table: vl.Table, line: Line) -> Work:
    name = f"tag{world.rng.randrange(4)}"
    if world.rng.random() < 0.4:
        return Work(lambda: table.delete_tag(name), refusals=(vl.NotFoundError,), name="delete_tag")
    if line.name is not None:
        return Work(lambda: table.tag(name), refusals=(vl.UnsupportedError,), name="tag of a branch")
    refusals = (vl.AlreadyExistsError, *expired(world, line, table.version))
    return Work(lambda: table.tag(name), refusals=refusals, name=f"tag {name}")


@operation(2, main_only=True)
def branch(world: World, table: vl.Table, line: Line) -> Work:
    name = f"b{world.rng.randrange(2)}"
    if any(line.name == name for line in world.lines) and world.rng.random() < 0.5:
        return Work(
            lambda: table.delete_branch(name), refusals=(vl.NotFoundError,), name=f"delete branch {name}"
        )
    refusals = (vl.AlreadyExistsError, *expired(world, line, table.version))
    return Work(lambda: table.branch(name), refusals=refusals, name=f"branch {name}")


@operation(3, main_only=True)
def fast_forward(world: World, table: vl.Table, line: Line) -> Work:
    name = f"b{world.rng.randrange(2)}"
    found: list[Line] = []

    def apply(held: Values, step: Step) -> set[int]:
        version = step.snapshot.summary.get("branch_version")
        if version is None:  # the branch has no version of its own
            return set()
        after = plain(step.after)
        candidates = [line for line in world.all_lines if line.name == name and version in line.versions]
        found.extend(line for line in candidates if plain(line.versions[version]) == after)
        assert found, "no such branch ever had these rows"
        held.clear()
        held.update(after)
        return set()

    def judge(step: Step) -> None:
        version = step.snapshot.summary["branch_version"]
        ids = {key: row.row_id for key, row in step.after.items()}
        assert any(ids == {key: row.row_id for key, row in line.versions[version].items()} for line in found)

    return Work(lambda: table.fast_forward(name), apply, judge, refusals=(vl.ConflictError, vl.NotFoundError))


# --- several at once ---


@operation(4)
def transaction(world: World, table: vl.Table, line: Line) -> Work:
    fresh = fresh_keys(world, 3)
    parts: list[Make] = world.rng.choices(
        [delete, update, upsert, insert, merge, add_column, backfill_column, set_properties], k=2
    )
    begun: list[Callable[[vl.Table], Work]] = [
        lambda tx: appending(tx, some_rows(world, fresh, ["x", "s", "v"])),
        lambda tx: upserting_one(world, tx, fresh[0]),
        *(lambda tx, make=make: make(world, tx, line) for make in parts),
    ]
    world.rng.shuffle(begun)
    done: list[Work] = []

    def do() -> object:
        done.clear()
        with table.transaction() as tx:
            for make in begun:
                work = make(tx)
                done.append(work)
                work.do()
        return table.snapshot

    def apply(held: Values, step: Step) -> set[int]:
        optional: set[int] = set()
        for work in done:
            optional |= work.apply(held, step)
        return optional

    refusals = (vl.AlreadyExistsError,)
    return Work(do, apply, refusals=refusals)


def upserting_one(world: World, table: vl.Table, key: int) -> Work:
    row = {"id": key, "x": world.rng.randrange(100)}

    def apply(held: Values, step: Step) -> set[int]:
        held[key] = {**held.get(key, {}), "x": row["x"]}
        return set()

    return Work(lambda: table.upsert(as_data([row])), apply)


# --- upkeep ---


@operation(4)
def compact(world: World, table: vl.Table, line: Line) -> Work:
    sort = world.rng.choice([None, None, "x", [("s", "desc"), "id"]])
    share = world.rng.choice([0.0, 0.1, 0.9])
    dry_run = world.rng.random() < 0.1
    return Work(
        lambda: table.compact(sort_by=sort, deleted_share=share, dry_run=dry_run),
        name="compact" if sort is None else f"compact by {sort}",
    )


@operation(2)
def rewrite_manifests(world: World, table: vl.Table, line: Line) -> Work:
    by, dry_run = world.rng.choice([None, "id", "x"]), world.rng.random() < 0.1
    return Work(lambda: table.rewrite_manifests(by, dry_run=dry_run))


@operation(2)
def expire_snapshots(world: World, table: vl.Table, line: Line) -> Work:
    older_than = world.rng.choice([DAY, 10 * DAY, None])
    keep_last = world.rng.randrange(1, 8)

    def do() -> object:
        return table.expire_snapshots(
            older_than=older_than, keep_last=keep_last, dry_run=world.rng.random() < 0.2
        )

    # A clock that is far off is refused; the process's may be set at any call.
    return Work(do, refusals=(vl.InvalidInputError,), name=f"expire {older_than} keeping {keep_last}")


@operation(2)
def collect_orphans(world: World, table: vl.Table, line: Line) -> Work:
    return Work(lambda: table.collect_orphans(older_than=DAY, dry_run=world.rng.random() < 0.1))


@operation(1)
def verify(world: World, table: vl.Table, line: Line) -> Work:
    version = table.version

    def do() -> None:
        findings = table.verify()
        assert findings == [] or line.deleted or not world.is_live(line, version), findings

    return Work(do)


# --- readers ---


@operation(4)
def read(world: World, table: vl.Table, line: Line) -> Work:
    """A reader among the writers: it pauses between its calls as they do."""
    version = table.version

    def do() -> None:
        assert rows_of(table) == line.versions[version], f"v{version} reads differently"

    return Work(do)


@operation(1)
def read_history(world: World, table: vl.Table, line: Line) -> Work:
    def do() -> None:
        for snapshot in table.history():
            assert line.commits[snapshot.version] == snapshot.commit_id

    return Work(do)


def expired(world: World, line: Line, version: int) -> tuple[type[Exception], ...]:
    """What may be raised of a version that has expired."""
    return () if world.is_live(line, version) else (vl.NotFoundError,)
