"""Writers and readers on one faulty store, and what the table must hold: the model behind `test_world.py`.

Every commit is checked against the intent of the operation that made it (known by its commit id), applied to a naive
model of its parent version. Where the semantics leave a choice (a filter may be evaluated on the version that its writer
had read, or again on the head), the check accepts either, and nothing else.
"""

from __future__ import annotations

import datetime as dt
import importlib
import pkgutil
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

import vectorlake as vl
from vectorlake.metadata.snapshot import Branch, Snapshot
from vectorlake.plan.conflict import LAYOUT_ONLY
from vectorlake.store.open import open_store
from vectorlake.testing.clocks import ManualClock, SequentialIds
from vectorlake.testing.faults import Fault, FaultyStore, Killed, random_faults


class Inline(Executor):
    """Runs what it is given at once, so that the order of store calls follows from the seed."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except BaseException as e:
            future.set_exception(e)
            if not isinstance(e, Exception):
                raise
        return future


def inline_threads() -> Iterator[tuple[Any, str, object]]:
    """What to replace, and by what, so that vectorlake starts no threads."""
    for found in pkgutil.iter_modules(importlib.import_module("vectorlake.table").__path__):
        module = importlib.import_module(f"vectorlake.table.{found.name}")
        if hasattr(module, "ThreadPoolExecutor"):
            yield module, "ThreadPoolExecutor", Inline


SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64()), ("s", pa.string())])
QUICK = {"write.scalar-format": "arrow"}
NOW = dt.timedelta(days=-36_500)
"""A grace period that no file escapes."""
KEYS = 24
"""Keys are drawn from so few that operations meet."""


@dataclass(frozen=True)
class Row:
    """A row as the model knows it: `values` by column (the key aside), row id, version of its last change."""

    values: dict[str, Any]
    row_id: int
    version: int


Rows = dict[int, Row]
Check = Callable[["Step"], None]


@dataclass(frozen=True)
class Step:
    """One commit to be judged: the parent's rows, the new ones, and those of the version its writer had opened."""

    before: Rows
    after: Rows
    base: Rows
    versions: dict[int, Rows]
    snapshot: Snapshot

    def settled(self, key: int) -> bool:
        """Whether the parent's row is still the one that the writer had read."""
        return key in self.base and self.base[key] == self.before.get(key)


@dataclass
class Intent:
    """What an operation means to do, and how it went."""

    what: str
    check: Check
    base: int
    failed: bool = False


def expect(step: Step, wanted: dict[int, dict[str, Any]], optional: frozenset[int] = frozenset()) -> None:
    """The rows after a commit are these; those of the keys in `optional` may be as they were."""
    for key in wanted.keys() | step.after.keys():
        found = step.after[key].values if key in step.after else None
        old = step.before[key].values if key in step.before else None
        allowed = [wanted.get(key)] + ([old] if key in optional else [])
        assert any(same_values(found, one) for one in allowed), (
            f"{step.snapshot.operation} v{step.snapshot.version}: key {key} is {found}, expected {allowed}"
        )


def same_values(found: dict[str, Any] | None, wanted: dict[str, Any] | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return {k: v for k, v in found.items() if v is not None} == {
        k: v for k, v in wanted.items() if v is not None
    }


def plain(rows: Rows) -> dict[int, dict[str, Any]]:
    return {key: dict(row.values) for key, row in rows.items()}


class Writer:
    """One process: a faulty store of its own over the shared one, opened anew after each death."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.start()

    def start(self) -> None:
        rates = {Fault.FAIL_BEFORE: 0.01, Fault.FAIL_AFTER: 0.01, Fault.OWN_WRITE_EXISTS: 0.02}
        rates |= {Fault.KILL_BEFORE: 0.01, Fault.KILL_AFTER: 0.01, Fault.DELAY: 0.08}
        schedule = random_faults(self.world.rng.randrange(2**32), rates)
        store = FaultyStore(self.world.store, schedule, delay=self.world.cut_in)
        self.lake = vl.Lake(store, clock=self.world.clock, new_id=self.world.new_id)


@dataclass
class Line:
    """The main line or a branch: the rows of each version that was seen, and the newest one."""

    name: str | None
    versions: dict[int, Rows] = field(default_factory=dict)
    newest: int = 0
    row_ids: dict[int, int] = field(default_factory=dict)
    """Row id → key, for all rows that ever were."""
    branch: Branch | None = None


class World:
    """Everything that a seed decides."""

    def __init__(self, seed: int, writers: int = 3, properties: dict[str, str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.store, self.clock, self._ids = open_store("memory://"), ManualClock(10**9), SequentialIds()
        self.intents: dict[str, Intent] = {}
        self._running: list[Intent] = []
        self.depth = 0
        self.counter = 0
        self.lake = vl.Lake(self.store, clock=self.clock, new_id=self._ids)
        self.lake.create_table(
            "t", SCHEMA, primary_key=["id"], properties=QUICK if properties is None else properties
        )
        self.lines: dict[str | None, Line] = {None: Line(None, {0: {}})}
        self.absorb()
        self.readers: list[tuple[vl.Table, Rows]] = []
        self.writers = [Writer(self) for _ in range(writers)]
        self.log: list[str] = []

    def new_id(self) -> str:
        """An id, noted as one that the running operation may commit under."""
        made = self._ids()
        if self._running:
            self.intents[made] = self._running[-1]
        return made

    @contextmanager
    def running(self, intent: Intent) -> Iterator[None]:
        self._running.append(intent)
        try:
            yield
        finally:
            self._running.pop()

    # --- the scheduler ---

    def cut_in(self) -> None:
        """Another writer does something while one is between two store calls."""
        if self.depth < 2:
            self.work()

    def work(self) -> None:
        """One operation by one writer, to its end, its error or its death."""
        self.depth += 1
        self.clock.advance(self.rng.randrange(-500, 5000))
        writer = self.rng.choice(self.writers)
        intent: Intent | None = None
        try:
            line = self.rng.choice([name for name in self.lines for _ in range(4 if name is None else 1)])
            table = writer.lake.table("t", branch=line) if line else writer.lake.table("t")
            if table.version not in self.lines[line].versions:
                self.absorb()
            name, do, check = self.pick(table, line)
            intent = Intent(name, check, table.version)
            self.log.append(f"{'  ' * self.depth}{line or 'main'} v{table.version}: {name}")
            with self.running(intent):
                do()
        except vl.CorruptDataError:
            raise
        except vl.OutcomeUnknownError:
            pass
        except vl.VectorlakeError:
            if intent is not None:
                intent.failed = True
        except Killed:
            writer.start()
        finally:
            self.depth -= 1

    def step(self) -> None:
        """One operation with whatever cuts into it, and all checks after it."""
        self.work()
        self.absorb()
        self.read()

    def quiet(self) -> None:
        """Nobody writes: old versions may go, and every file that nothing refers to."""
        table = self.lake.table("t")
        table.expire_snapshots(older_than=None, keep_last=self.rng.randrange(1, 6))
        table.collect_orphans(older_than=NOW)
        kept = {snapshot.version for snapshot in table.history()}
        main = self.lines[None]
        main.versions = {v: rows for v, rows in main.versions.items() if v in kept or v == main.newest}
        self.readers = [r for r in self.readers if r[0].branch_name is None and r[0].version in kept]
        for version in kept:
            self.check_contents(table.at(version), main.versions[version])
            assert table.at(version).verify() == []
        for name in self.lines:
            if name is not None:
                assert table.checkout(name).verify() == []

    # --- the checks ---

    def absorb(self) -> None:
        """Judge all commits that are not known yet."""
        lake = vl.Lake(self.store, clock=self.clock, new_id=self._ids)
        table = lake.table("t")
        branches = {info.name for info in table.branches()}
        for name, line in [*self.lines.items()]:
            if name is not None and (name not in branches or line.branch != table.checkout(name)._log.branch):
                del self.lines[name]
        for name in branches - self.lines.keys():
            opened = table.checkout(name)
            fork = next(info.fork_version for info in table.branches() if info.name == name)
            main = self.lines[None]
            if fork not in main.versions:
                main.versions[fork] = rows_of(opened.at(fork))
            known = {version: rows for version, rows in main.versions.items() if version <= fork}
            held = {row.row_id: key for rows in known.values() for key, row in rows.items()}
            self.lines[name] = Line(name, known, fork, held, opened._log.branch)
        for name, line in self.lines.items():
            opened = table.checkout(name) if name else table
            for version in range(line.newest + 1, opened.version + 1):
                self.judge(line, opened.at(version))

    def judge(self, line: Line, pinned: vl.Table) -> None:
        snapshot, version = pinned.snapshot, pinned.version
        before, after = line.versions[version - 1], rows_of(pinned)
        intent = self.intents.get(snapshot.commit_id)
        if intent is not None:
            assert not intent.failed, f"{intent.what}: an error said that nothing was committed"
            base = line.versions.get(intent.base, before)
            intent.check(Step(before, after, base, line.versions, snapshot))
        assert pinned.count() == len(after)
        self.check_rows(line, before, after, snapshot)
        line.versions[version] = after
        line.newest = version
        renamed = snapshot.operation in ("rename-column", "restore", "fast-forward") and (
            {name for row in before.values() for name in row.values} ^ set(pinned.schema.names) != {"id"}
        )
        if version > 1 and not renamed and self.rng.random() < 0.3:
            replayed = replay(plain(before), pinned, version)
            assert replayed == plain(after), f"the change feed of v{version} ({snapshot.operation})"

    def check_rows(self, line: Line, before: Rows, after: Rows, snapshot: Snapshot) -> None:
        ids = [row.row_id for row in after.values()]
        assert len(set(ids)) == len(ids), "two rows have one row id"
        for key, row in after.items():
            assert line.row_ids.setdefault(row.row_id, key) == key, "a row id was given to another row"
            assert row.row_id < snapshot.next_row_id
            assert row.version <= snapshot.version
            old = before.get(key)
            if old is None or snapshot.operation in ("restore", "overwrite", "fast-forward", "transaction"):
                continue
            assert old.row_id == row.row_id, f"{snapshot.operation} gave key {key} another row id"
            if same_values(old.values, row.values):
                assert row.version in (old.version, snapshot.version)
            elif snapshot.operation not in ("rename-column", "drop-column"):
                assert row.version == snapshot.version, "a changed row has an old version"
            if snapshot.operation in LAYOUT_ONLY:
                assert old == row, f"{snapshot.operation} changed {old} to {row}"

    def read(self) -> None:
        """A reader that pinned a version some time ago sees it still; now and then another one comes."""
        if self.rng.random() < 0.3:
            table = self.lake.table("t")
            if table.version == self.lines[None].newest:
                self.readers.append((table.at(table.version), self.lines[None].versions[table.version]))
                self.readers = self.readers[-6:]
        if self.readers:
            self.check_contents(*self.rng.choice(self.readers))

    def check_contents(self, table: vl.Table, rows: Rows) -> None:
        assert rows_of(table) == rows, f"version {table.version} reads differently than when it was committed"
        key = self.rng.randrange(KEYS)
        found = table.scan(columns=["x"], filter=f"id = {key}").to_arrow()["x"].to_pylist()
        assert found == ([rows[key].values.get("x")] if key in rows and "x" in table.schema.names else found)
        if key in rows:
            assert table.take([rows[key].row_id], ["id"])["id"].to_pylist() == [key]

    # --- the operations ---

    def pick(self, table: vl.Table, line: str | None) -> tuple[str, Callable[[], object], Check]:
        from operations import OPERATIONS

        names = [
            name for name, (weight, where, _) in OPERATIONS.items() if where(line) for _ in range(weight)
        ]
        name = self.rng.choice(names)
        do, check = OPERATIONS[name][2](self, table)
        return name, do, check


def rows_of(table: vl.Table) -> Rows:
    found = table.scan(columns=[*table.schema.names, "_row_id", "_last_updated_version"]).to_arrow()
    rows: Rows = {}
    for row in found.to_pylist():
        key, row_id, version = row.pop("id"), row.pop("_row_id"), row.pop("_last_updated_version")
        assert key not in rows, f"key {key} is there twice"
        rows[key] = Row(row, row_id, version)
    return rows


def replay(rows: dict[int, dict[str, Any]], table: vl.Table, version: int) -> dict[int, dict[str, Any]]:
    """The rows of the version before with the changes of one version applied."""
    names = table.schema.names
    rows = {key: {name: row.get(name) for name in names if name != "id"} for key, row in rows.items()}
    for change in table.changes(version - 1, version).to_arrow().to_pylist():
        key, kind = change["id"], change["_change_type"]
        if kind in ("delete", "update_preimage"):
            rows.pop(key)
        else:
            assert key not in rows
            rows[key] = {name: change[name] for name in names if name != "id"}
    return rows
