"""Hosts on one faulty store, and all that must hold whatever they do: the simulation behind `test_world.py`.

Every commit is judged at the moment it happens, against the intent of the operation that made it (known by its commit
id), applied to the model of its parent. Every removal of a file is judged likewise. What is drawn comes from the seed.
"""

from __future__ import annotations

import datetime as dt
import importlib
import pkgutil
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pyarrow as pa
from hosts import Host
from model import (
    INDEX_OPERATIONS,
    Intent,
    Line,
    Rows,
    check_searches,
    judge,
    judge_nothing,
    plain,
    replay,
    rows_of,
)
from stores import Change, Disk, SimulatedStore

import vectorlake as vl
from vectorlake.metadata.manifest import decode_manifest
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.metadata.tombstone import decode_version
from vectorlake.table import balls
from vectorlake.table.commit import Committer
from vectorlake.table.table import Table
from vectorlake.testing.clocks import SequentialIds
from vectorlake.testing.faults import Fault, FaultyStore, Killed, random_faults

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64()), ("s", pa.string()), ("v", vl.vector(4))])
NOW = dt.timedelta(days=-36_500)
"""A grace period that no file escapes."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FREEZE_MS = 30 * DAY_MS
"""For so long everything stands still now and then: whatever was running is older than any grace period."""
SKEWS_MS = (0, 0, 0, 40_000, -40_000, 2 * HOUR_MS, -2 * HOUR_MS, 5 * DAY_MS, -5 * DAY_MS)
_SNAPSHOT = re.compile(r"main/t/(metadata(?:/branches/[^/]+)?)/v(\d{20})\.json")
_BRANCH = re.compile(r"main/t/metadata/refs/branches/(.+)\.json")
_FILE = re.compile(r"main/t/((?:data|deletes|index|keys|blobs)/.*|metadata/m-.*)")


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


def pause_here(_: float = 0) -> None:
    """Instead of waiting between two attempts to commit: others go on."""
    process = _processes.get(threading.get_ident())
    if process is not None:
        process.pause()


_processes: dict[int, Process] = {}


def replacements() -> Iterator[tuple[Any, str, object]]:
    """What to set on what, so that vectorlake starts no threads, sleeps by the scheduler, and makes balls of few rows."""
    packages = [importlib.import_module(f"vectorlake.{name}") for name in ("table", "search", "index")]
    for found in (
        found
        for package in packages
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ):
        module = importlib.import_module(found.name)
        if hasattr(module, "ThreadPoolExecutor"):
            yield module, "ThreadPoolExecutor", Inline
    # Tables here are small: so that sorted ones have balls all the same.
    for name, rows in (("BALL_ROWS", 4), ("LEAST_RUN", 1), ("MOST_RUN", 4)):
        yield balls, name, rows
    defaults = Committer.__init__.__kwdefaults__
    assert "sleep" in defaults
    yield Committer.__init__, "__kwdefaults__", {**defaults, "sleep": pause_here}


class Process:
    """One host's process, begun anew after each death: a lake over a faulty store of its own."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.life = world, number, 0
        self.intent: Intent | None = None
        self.skew_ms = 0
        self.kept: tuple[vl.Table, Line, int] | None = None
        self.host = Host(f"host {number}", self.work)
        self.start()

    def start(self) -> None:
        self.life += 1
        self.kept = None
        rng, world = self.world.rng, self.world
        rates = {Fault.FAIL_BEFORE: 0.004, Fault.FAIL_AFTER: 0.004, Fault.OWN_WRITE_EXISTS: 0.02}
        rates |= {Fault.KILL_BEFORE: 0.004, Fault.KILL_AFTER: 0.004, Fault.DELAY: world.haste}
        store = SimulatedStore(world.disk, f"{self.host.name}-{self.life}".replace(" ", ""))
        self.store = FaultyStore(store, random_faults(rng.randrange(2**32), rates), delay=self.pause)
        self.lake = vl.Lake(self.store, clock=self.clock, new_id=self.new_id)

    def clock(self) -> int:
        return self.world.disk.now_ms + self.skew_ms

    def new_id(self) -> str:
        """An id, noted as one that the running operation may commit under."""
        made = self.world.ids()
        if self.intent is not None:
            self.world.intents[made] = self.intent
        return made

    def pause(self) -> None:
        self.world.pass_time()
        self.host.pause()
        if self.world.rng.random() < 0.02:
            self.skew_ms = self.world.rng.choice(SKEWS_MS)

    def note(self, text: str) -> None:
        self.world.log.append(f"{self.world.disk.now_ms} {self.host.name}.{self.life}: {text}")

    # --- one operation ---

    def work(self) -> None:
        """One operation, to its end, its error or the process's death."""
        _processes[threading.get_ident()] = self
        rng, world = self.world.rng, self.world
        first_call = len(self.store.trace)
        try:
            table, line, seen = self.open()
            operation = world.pick(table, line)
            self.intent = Intent(operation.name, operation.apply, table.version, judge=operation.judge)
            self.note(f"{operation.name} on {line.name or 'main'} v{table.version}")
            try:
                result = operation.do()
                self.done(line, result)
                self.note(f"{operation.name} done: {_shown(result)}")
            except vl.VectorlakeError as error:
                self.note(f"{operation.name} failed: {type(error).__name__}: {str(error)[:150]}")
                self.check_failure(error, operation, line, table.version, seen, first_call)
            self.kept = (table, line, seen) if rng.random() < 0.4 else None
        except vl.VectorlakeError as error:  # opening failed
            self.note(f"open failed: {type(error).__name__}: {str(error)[:150]}")
            if not (isinstance(error, vl.NotFoundError) or self.faulted(first_call)):
                raise
        except Killed as death:
            self.note(f"died: {death}")
            self.intent = None
            self.start()
        finally:
            self.intent = None

    def open(self) -> tuple[vl.Table, Line, int]:
        """A table at some line's newest version, or as it was left by the operation before."""
        if self.kept is not None and not self.kept[1].deleted:
            return self.kept
        world = self.world
        seen = world.changes
        names = [line.name for line in world.lines for _ in range(4 if line.name is None else 1)]
        name = world.rng.choice(names)
        table = self.lake.table("t", branch=name) if name else self.lake.table("t")
        return table, world.line_of(table._log.folder), seen

    def done(self, line: Line, result: object) -> None:
        """What was acknowledged is there."""
        intent = self.intent
        assert intent is not None
        if (
            not isinstance(result, Snapshot) or line.deleted
        ):  # a branch may be deleted as somebody commits to it
            return
        assert line.commits[result.version] == result.commit_id, "an acknowledged commit is not there"
        if self.world.intents.get(result.commit_id) is not intent:
            assert intent.version is None, f"{intent.what} committed, and says that it did not"
            judge_nothing(line, intent, result)

    def check_failure(
        self, error: Exception, operation: Any, line: Line, base: int, seen: int, first_call: int
    ) -> None:
        """An error must be one that there was reason for, and true."""
        assert self.intent is not None
        if isinstance(error, vl.OutcomeUnknownError):
            assert self.faulted(first_call), "an unknown outcome without a fault"
            return
        if isinstance(error, vl.StorageError):
            assert self.faulted(first_call), f"{operation.name} failed without a fault: {error}"
        elif isinstance(error, vl.CorruptDataError):
            assert line.deleted or not self.world.is_live(line, base), f"{operation.name}: {error}"
        elif not isinstance(error, operation.refusals):
            assert isinstance(error, vl.ConflictError | vl.AlreadyExistsError | vl.NotFoundError), (
                f"{operation.name} was refused: {type(error).__name__}: {error}"
            )
            assert self.world.changes > seen, f"{operation.name} failed without a cause: {error}"
            # What a transaction computed itself is refused after any commit of others.
            if isinstance(error, vl.ConflictError) and "in this transaction" not in str(error):
                assert self.met(line), f"{operation.name} met nothing that it conflicts with: {error}"
        assert self.intent.version is None, f"{operation.name} committed, and says that it failed: {error}"
        self.intent.failed = True

    def met(self, line: Line) -> bool:
        """Whether something was committed since the operation began that it may conflict with: work on rows and work on
        indexes never meet, but for what changes both: a restore and an overwrite."""
        assert self.intent is not None
        since = range(self.intent.base + 1, line.newest + 1)
        index = "index" in self.intent.what
        return line.deleted or any(
            (line.operations[version] in INDEX_OPERATIONS) is index
            or line.operations[version] in ("restore", "overwrite")
            or not self.world.is_live(line, version)
            for version in since
        )

    def faulted(self, first_call: int) -> bool:
        harmless = (None, Fault.DELAY)
        return any(call.fault not in harmless for call in self.store.trace[first_call:])


class World:
    """Everything that a seed decides."""

    def __init__(self, seed: int, processes: int = 3, properties: dict[str, str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.haste = self.rng.choice([0.02, 0.06, 0.2])
        """How often hosts take turns."""
        self.disk = Disk(1_700_000_000_000, self.changed)
        self.ids = SequentialIds()
        self.intents: dict[str, Intent] = {}
        self.changes = 0
        self.counter = 0
        self.log: list[str] = []
        self.lines: list[Line] = []
        """The main line first, then the branches there are."""
        self.all_lines: list[Line] = []
        self._references: dict[str, tuple[bytes, frozenset[str]]] = {}
        self._manifests: dict[str, frozenset[str]] = {}
        self.lake = vl.Lake(
            SimulatedStore(self.disk, "judge"), clock=lambda: self.disk.now_ms, new_id=self.ids
        )
        self.main = Line(None, "metadata", {0: {}, 1: {}}, 1)
        self.table = self.lake.create_table("t", SCHEMA, primary_key=["id"], properties=properties)
        self.main.times[1], self.main.commits[1] = (
            self.table.snapshot.timestamp_ms,
            self.table.snapshot.commit_id,
        )
        self.lines = [self.main]
        self.all_lines = [self.main]
        self.readers: list[tuple[vl.Table, Line, Rows]] = []
        self.processes = [Process(self, number) for number in range(processes)]

    # --- the scheduler ---

    def step(self) -> None:
        """Let hosts go on until one of them has ended an operation; then all readers' checks."""
        while True:
            if self.rng.random() < 0.05:
                for process in self.processes:
                    process.host.weight = self.rng.choice([0.05, 1.0, 1.0])
            weights = [process.host.weight for process in self.processes]
            process = self.rng.choices(self.processes, weights)[0]
            self.pass_time()
            if process.host.go_on():
                break
        self.read()

    def pass_time(self) -> None:
        self.disk.now_ms += self.rng.randrange(5000)
        if self.rng.random() < 0.002:
            self.log.append("30 days pass")
            self.disk.now_ms += FREEZE_MS

    def quiet(self) -> None:
        """All operations end. Then old versions may go, and every file that nothing refers to."""
        for process in self.processes:
            while process.host.busy and not process.host.go_on():
                pass
        self.table.refresh()
        self.table.expire_snapshots(older_than=None, keep_last=self.rng.randrange(1, 6))
        self.log.append("quiet: collects all")
        self.table.collect_orphans(older_than=NOW)
        for line in self.lines:
            for version in self.live_versions(line):
                pinned = self.pinned(line, version)
                self.check_contents(pinned, line.versions[version])
                assert pinned.verify() == []
        for tag in self.table.tags():
            tagged = self.table.at(tag.name)
            self.check_contents(tagged, self.main.versions[tag.version])
            assert tagged.verify() == []
        used = self.referenced()
        left = {found[1] for path in self.disk.objects if (found := _FILE.fullmatch(path))}
        assert left == used, f"not collected: {left - used}; missing: {used - left}"
        folders = {line.folder for line in self.lines}
        for path in self.disk.objects:
            if found := _SNAPSHOT.fullmatch(path):
                assert found[1] in folders, f"{path} is of no branch"
            assert ".tmp" not in path, f"{path} was left"

    def end(self) -> None:
        for process in self.processes:
            process.host.stop()

    # --- what happens to the store, judged as it happens ---

    def changed(self, change: Change, path: str) -> None:
        snapshot, branch = _SNAPSHOT.fullmatch(path), _BRANCH.fullmatch(path)
        if snapshot or "/refs/" in path:
            self.changes += 1
        if change is Change.DELETE:
            if branch:
                self.branch_deleted(branch[1])
            elif snapshot:
                self.snapshot_deleted(path, snapshot[1])
            elif found := _FILE.fullmatch(path):
                assert found[1] not in self.referenced(), f"{found[1]} is removed, and live"
        elif branch:
            self.branch_created(branch[1])
        elif snapshot and self.lines:
            self.snapshot_put(path, snapshot[1], int(snapshot[2]))

    def snapshot_put(self, path: str, folder: str, version: int) -> None:
        line = next((line for line in self.lines if line.folder == folder), None)
        if line is not None:
            missing = [file for file in self._needed_by(self.disk.objects[path], path) if not self.has(file)]
            assert not missing, f"{path} needs {missing}, which is not there"
        if line is None or version in line.commits:
            entry = decode_version(self.disk.objects[path], path)
            if line is not None:
                assert entry.commit_id == line.commits[version], "a version was replaced by another one"
                assert isinstance(entry, Snapshot) or version < line.newest, "the newest version expired"
            return
        assert version == line.newest + 1, f"v{version} follows v{line.newest}"
        pinned = self.pinned(line, version)
        after = rows_of(pinned)
        judge(line, self.intents[pinned.snapshot.commit_id], pinned.snapshot, after)
        assert pinned.count() == len(after) == len(pinned)
        check_searches(pinned, after, self.rng)
        if version > 1 and self.rng.random() < 0.3:
            back = 1 if self.rng.random() < 0.7 else self.rng.randrange(1, 6)
            start = max(1, version - back)
            if all(self.is_live(line, known) for known in range(start, version)):
                for by in ("commit", "net"):
                    replayed = replay(self.pinned(line, start), line.versions[start], pinned, by)
                    assert replayed == plain(after), f"the change feed from v{start} to v{version} by {by}"

    def snapshot_deleted(self, path: str, folder: str) -> None:
        if any(line.folder == folder for line in self.lines):
            entry = decode_version(self.disk.objects[path], path)
            assert not isinstance(entry, Snapshot), f"{path} was removed, and had not expired"

    def branch_created(self, name: str) -> None:
        opened = self.table.checkout(name)
        assert opened._log.branch is not None
        line = self.main.fork(name, opened._log.folder, opened._log.branch.version)
        if not any(line.folder == known.folder for known in self.lines):
            self.lines.append(line)
            self.all_lines.append(line)

    def branch_deleted(self, name: str) -> None:
        for line in self.lines:
            line.deleted |= line.name == name
        self.lines = [line for line in self.lines if not line.deleted]

    # --- what there is ---

    def line_of(self, folder: str) -> Line:
        return next(line for line in self.all_lines if line.folder == folder)

    def pinned(self, line: Line, version: int) -> vl.Table:
        log = (
            self.table._log
            if line.name is None
            else self.table._log.on(self.table._log.get_branch(line.name))
        )
        return Table("t", log, log.load(version), context=self.table._context, pinned=True)

    def has(self, file: str) -> bool:
        return f"main/t/{file}" in self.disk.objects

    def is_live(self, line: Line, version: int) -> bool:
        for folder in (line.folder, "metadata"):
            path = f"main/t/{folder}/v{version:020d}.json"
            if path in self.disk.objects:
                return isinstance(decode_version(self.disk.objects[path], path), Snapshot)
        return False

    def live_versions(self, line: Line) -> list[int]:
        return [version for version in line.commits if self.is_live(line, version)]

    def referenced(self) -> frozenset[str]:
        """The files that the snapshots of all lines need, read anew from the store."""
        folders = {line.folder for line in self.lines}
        used: set[str] = set()
        for path, data in self.disk.objects.items():
            found = _SNAPSHOT.fullmatch(path)
            if found and found[1] in folders:
                known = self._references.get(path)
                if known is None or known[0] is not data:
                    known = self._references[path] = (data, frozenset(self._needed_by(data, path)))
                used |= known[1]
        return frozenset(used)

    def _needed_by(self, data: bytes, path: str) -> Iterator[str]:
        entry = decode_version(data, path)
        if not isinstance(entry, Snapshot):
            return
        for ref in entry.manifests:
            if ref.path not in self._manifests:
                files = {ref.path}
                manifest = decode_manifest(self.disk.objects[f"main/t/{ref.path}"], ref, ref.path)
                for fragment in manifest.fragments():
                    named = (*fragment.files, fragment.deletes, fragment.keys, *fragment.balls)
                    files |= {file.path for file in named if file is not None}
                self._manifests[ref.path] = frozenset(files)
            yield from self._manifests[ref.path]
        for index in entry.indexes:
            yield from [index.model.path, *(segment.file.path for segment in index.segments)]

    # --- the readers ---

    def read(self) -> None:
        """A reader that pinned a version some time ago sees it still; now and then another one comes."""
        self.readers = [r for r in self.readers if not r[1].deleted and self.is_live(r[1], r[0].version)]
        if self.rng.random() < 0.3:
            line = self.rng.choice(self.lines)
            self.readers.append((self.pinned(line, line.newest), line, line.versions[line.newest]))
            self.readers = self.readers[-6:]
        if self.readers:
            table, _, rows = self.rng.choice(self.readers)
            self.check_contents(table, rows)

    def check_contents(self, table: vl.Table, rows: Rows) -> None:
        assert rows_of(table) == rows, f"version {table.version} reads differently than when it was committed"
        key = self.rng.randrange(24)
        found = table.scan(columns=["x"], filter=f"id = {key}").to_arrow()["x"].to_pylist()
        assert found == ([rows[key].values.get("x")] if key in rows else [])
        if key in rows:
            assert table.take([rows[key].row_id], ["id"])["id"].to_pylist() == [key]
        check_searches(table, rows, self.rng)

    # --- the operations ---

    def pick(self, table: vl.Table, line: Line) -> Any:
        import indexes  # noqa: F401 - which adds to the operations
        from operations import OPERATIONS

        known = [kind for kind in OPERATIONS if line.name is None or not kind.main_only]
        return self.rng.choices(known, [kind.weight for kind in known])[0].make(self, table, line)


def _shown(result: object) -> str:
    return f"v{result.version}" if isinstance(result, Snapshot) else str(result)[:100]
