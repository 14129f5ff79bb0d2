"""Faults between any two store calls: a commit takes place whole or not at all, and no row is lost or doubled.

Everything is drawn from a seed: which writer does what, which store call fails, loses its reply or is its process's
last, and where another writer cuts in. A failing seed is in the test's name and replays.
"""

from __future__ import annotations

import datetime as dt
import os
import random
from collections.abc import Callable

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.store.open import open_store
from vectorlake.store.protocol import Store
from vectorlake.testing.clocks import ManualClock, SequentialIds
from vectorlake.testing.faults import Fault, FaultyStore, Killed, fault_at, random_faults

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64())])
FAULTS = [Fault.FAIL_BEFORE, Fault.FAIL_AFTER, Fault.OWN_WRITE_EXISTS, Fault.KILL_AFTER]
"""At any call. A process that dies before a call leaves what one leaves that dies after the call before it."""
Rows = dict[int, int]
NOW = dt.timedelta(days=-36_500)
"""A grace period that no file escapes: the memory store's times are the machine's, the clock is not."""


def lake_on(store: Store, clock: ManualClock, ids: SequentialIds) -> vl.Lake:
    return vl.Lake(store, clock=clock, new_id=ids)


def rows_of(table: vl.Table) -> Rows:
    found = table.scan(columns=["id", "x"]).to_arrow()
    ids = found["id"].to_pylist()
    assert len(set(ids)) == len(ids), "a row is doubled"
    return dict(zip(ids, found["x"].to_pylist(), strict=True))


OPERATIONS: dict[str, Callable[[vl.Table], object]] = {
    "append": lambda t: t.append({"id": [100, 101], "x": [1, 2]}),
    "overwrite": lambda t: t.overwrite({"id": [7], "x": [7]}),
    "delete": lambda t: t.delete("id < 2"),
    "delete whole fragments": lambda t: t.delete("id < 3"),
    "add column": lambda t: t.add_column("y", "id * 2"),
    "drop column": lambda t: t.drop_column("x"),
    "restore": lambda t: t.restore(1),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_fault_at_any_call_leaves_before_or_after(operation: str, fault: Fault) -> None:
    base, clock, ids = open_store("memory://"), ManualClock(10_000), SequentialIds()
    table = lake_on(base, clock, ids).create_table(
        "t", pa.table({"id": [0, 1, 2], "x": [5, 5, 5]}, schema=SCHEMA)
    )
    table.append({"id": [3], "x": [6]})
    before = (table.schema, table.to_arrow())
    OPERATIONS[operation](table)
    after = (table.schema, table.to_arrow())
    table.restore(2)
    number = 0
    while True:
        store = open_store("memory://")
        for info in base.list():
            store.put(info.path, base.get(info.path))
        plain = lake_on(store, clock, ids)

        faulty = FaultyStore(store, fault_at(number, fault))
        error: BaseException | None = None
        try:
            OPERATIONS[operation](lake_on(faulty, clock, ids).table("t"))
        except (vl.StorageError, Killed) as e:
            error = e
        reopened = plain.table("t")
        state = (reopened.schema, reopened.to_arrow())
        assert state in (before, after)
        if error is None:
            assert state == after
        elif isinstance(error, vl.StorageError) and not isinstance(error, vl.OutcomeUnknownError):
            assert state == before, "an error said that nothing was committed"
        reopened.append({"id": [999]})
        assert reopened.count("id = 999") == 1
        referenced = {info.path for info in reopened.store.list()}
        reopened.collect_orphans(older_than=NOW)
        assert plain.table("t").to_arrow().num_rows == state[1].num_rows + 1
        assert plain.table("t").verify() == []
        assert {info.path for info in reopened.store.list()} <= referenced
        if number >= len(faulty.trace):
            return
        number += 1


class Writer:
    """One process: a faulty store of its own over the shared one, opened anew after each death."""

    def __init__(self, world: World, name: int) -> None:
        self.world, self.name = world, name
        self.start()

    def start(self) -> None:
        rng = self.world.rng
        rates = {Fault.FAIL_BEFORE: 0.01, Fault.FAIL_AFTER: 0.01, Fault.OWN_WRITE_EXISTS: 0.02}
        rates |= {Fault.KILL_BEFORE: 0.01, Fault.KILL_AFTER: 0.01, Fault.DELAY: 0.1}
        store = FaultyStore(
            self.world.store, random_faults(rng.randrange(2**32), rates), delay=self.world.cut_in
        )
        self.lake = lake_on(store, self.world.clock, self.world.ids)


class World:
    """Several writers on one store, and what the table must hold."""

    def __init__(self, seed: int, writers: int = 3) -> None:
        self.rng = random.Random(seed)
        self.store, self.clock, self.ids = open_store("memory://"), ManualClock(10**9), SequentialIds()
        self.plain = lake_on(self.store, self.clock, self.ids)
        self.plain.create_table("t", SCHEMA)
        self.known: set[int] = set()
        self.appended: dict[str, Rows] = {}
        self.next_id = 0
        self.depth = 0
        self.writers = [Writer(self, name) for name in range(writers)]

    def cut_in(self) -> None:
        """Another writer does something while one is between two store calls."""
        if self.depth < 2:
            self.step()

    def step(self) -> None:
        self.depth += 1
        self.clock.advance(self.rng.randrange(-500, 5000))
        writer = self.rng.choice(self.writers)
        try:
            self.work(writer)
        except vl.ConflictError:
            pass
        except vl.StorageError:
            pass
        except Killed:
            writer.start()
        finally:
            self.depth -= 1

    def work(self, writer: Writer) -> None:
        table = writer.lake.table("t")
        kind = self.rng.choice(["append", "append", "append", "delete", "column", "restore", "collect"])
        if kind == "append":
            rows = {self.next_id + i: self.rng.randrange(100) for i in range(self.rng.randrange(1, 4))}
            self.next_id += len(rows)
            table.append({"id": list(rows), "x": list(rows.values())})
        elif kind == "delete":
            table.delete(f"id % 7 = {self.rng.randrange(7)}")
        elif kind == "column":
            name = f"c{self.next_id}_{self.rng.randrange(10**6)}"
            table.add_column(name, "x + id", type=pa.int64())
        elif kind == "restore" and table.version > 3:
            table.restore(self.rng.randrange(1, table.version))
        elif kind == "collect":
            self.plain.table("t").collect_orphans(older_than=dt.timedelta(days=1))

    def check(self) -> None:
        """Every version is whole, and each follows from the one before by what its operation says it did."""
        table = self.plain.table("t")
        before: Rows = {}
        states: dict[int, Rows] = {}
        seen_row_ids: dict[int, int] = {}
        for snapshot in reversed(table.history()):
            pinned = table.at(snapshot.version)
            rows = rows_of(pinned)
            assert pinned.count() == len(rows)
            summary = snapshot.summary
            if snapshot.operation == "append":
                added = {key: value for key, value in rows.items() if key not in before}
                assert len(added) == summary["added_rows"]
                assert {**before, **added} == rows, "an append changed other rows"
            elif snapshot.operation == "delete":
                assert rows.items() <= before.items()
                assert len(before) - len(rows) == summary["deleted_rows"]
            elif snapshot.operation == "add-column":
                assert rows == before
                for row in pinned.scan(columns=["id", "x", summary["column"]]).to_arrow().to_pylist():
                    assert row[summary["column"]] in (None, row["id"] + row["x"])
            elif snapshot.operation == "restore":
                assert rows == states[summary["restored_version"]]
            for row in pinned.scan(columns=["id", "_row_id"]).to_arrow().to_pylist():
                assert seen_row_ids.setdefault(row["_row_id"], row["id"]) == row["id"], "a row id was reused"
            states[snapshot.version] = before = rows
        assert table.verify() == []


SEEDS: list[int | None] = [*range(8), None]
"""None: a fresh seed, printed when it fails; VECTORLAKE_SEED=… replays it, VECTORLAKE_STEPS=… runs it longer."""


@pytest.mark.parametrize(
    "seed", SEEDS if "VECTORLAKE_SEED" not in os.environ else [int(os.environ["VECTORLAKE_SEED"])]
)
def test_writers_under_random_faults(seed: int | None) -> None:
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"replay with VECTORLAKE_SEED={seed}")
    world = World(seed)
    for _ in range(int(os.environ.get("VECTORLAKE_STEPS", "40"))):
        world.step()
    world.check()
