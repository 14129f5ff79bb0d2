"""What the simulated table must hold, by a naive model in memory: rows by key for every version of every line."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

import vectorlake as vl
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.conflict import LAYOUT_ONLY

EVERYTHING = 1_000_000
INDEX_OPERATIONS = frozenset({"create-index", "rebuild-index", "optimize-index", "drop-index"})

Values = dict[int, dict[str, Any]]
"""Key → the other columns; a column that is missing is null."""


@dataclass(frozen=True)
class Row:
    """A row as the model knows it: `values` by column (the key aside), row id, version of its last change."""

    values: dict[str, Any]
    row_id: int
    version: int


Rows = dict[int, Row]
Indexes = dict[str, tuple[str, tuple[str, ...]]]
"""Name → the ids of its model and of its segments."""


@dataclass(frozen=True)
class Step:
    """One commit to be judged: the parent's rows, the new ones, and those of the version its writer had opened."""

    before: Rows
    after: Rows
    base: Rows
    versions: dict[int, Rows]
    snapshot: Snapshot
    indexes_before: Indexes = field(default_factory=dict)
    indexes_after: Indexes = field(default_factory=dict)
    replaced: bool = False
    """Others took all rows away and brought others, perhaps equal ones."""

    def settled(self, key: int) -> bool:
        """Whether the parent's row is still the one that the writer had read."""
        return not self.replaced and key in self.base and self.base[key] == self.before.get(key)

    def unsettled(self, keys: set[int]) -> set[int]:
        return {key for key in keys if not self.settled(key)}


Apply = Callable[[Values, Step], set[int]]
"""Makes of the parent's rows what they must be after the commit. Returns keys whose rows may also be as they were:
where a filter may be evaluated on the version that the writer had read, or again on the head."""


def unchanged(rows: Values, step: Step) -> set[int]:
    return set()


@dataclass
class Intent:
    """What an operation means to do, and how it went."""

    what: str
    apply: Apply
    base: int
    version: int | None = None
    """What it committed."""
    failed: bool = False
    judge: Callable[[Step], None] | None = None
    """Checks beyond the rows' values."""


@dataclass
class Line:
    """The main line or a branch: the rows of each version that ever was, and the newest one."""

    name: str | None
    folder: str
    versions: dict[int, Rows]
    newest: int
    row_ids: dict[int, int] = field(default_factory=dict)
    """Row id → key, for all rows that ever were."""
    times: dict[int, int] = field(default_factory=dict)
    commits: dict[int, str] = field(default_factory=dict)
    indexes: dict[int, Indexes] = field(default_factory=dict)
    operations: dict[int, str] = field(default_factory=dict)
    replacing: set[int] = field(default_factory=set)
    """Versions that replaced all rows."""
    deleted: bool = False

    def fork(self, name: str, folder: str, version: int) -> Line:
        known = {number: rows for number, rows in self.versions.items() if number <= version}
        held = {row.row_id: key for rows in known.values() for key, row in rows.items()}
        times = {number: time for number, time in self.times.items() if number <= version}
        commits = {number: commit for number, commit in self.commits.items() if number <= version}
        indexes = {number: found for number, found in self.indexes.items() if number <= version}
        return Line(
            name, folder, known, version, held, times, commits, indexes, replacing=set(self.replacing)
        )


def judge(line: Line, intent: Intent, snapshot: Snapshot, after: Rows) -> None:
    """One more version of a line: it must be what its operation makes of the version before."""
    before = line.versions[snapshot.version - 1]
    assert not intent.failed, f"{intent.what}: an error said that nothing was committed"
    assert intent.version is None, f"{intent.what} was committed twice"
    replaced = any(intent.base < version < snapshot.version for version in line.replacing)
    step = Step(
        before,
        after,
        line.versions.get(intent.base, before),
        line.versions,
        snapshot,
        line.indexes.get(snapshot.version - 1, {}),
        indexes_of(snapshot),
        replaced,
    )
    _check_values(intent, step)
    _check_indexes(step)
    if intent.judge is not None:
        intent.judge(step)
    _check_lineage(line, step)
    assert snapshot.timestamp_ms > line.times.get(snapshot.version - 1, -1), "time went back"
    intent.version = snapshot.version
    line.versions[snapshot.version] = after
    line.times[snapshot.version] = snapshot.timestamp_ms
    line.commits[snapshot.version] = snapshot.commit_id
    line.indexes[snapshot.version] = step.indexes_after
    line.operations[snapshot.version] = snapshot.operation
    if snapshot.operation in ("restore", "fast-forward", "overwrite"):
        line.replacing.add(snapshot.version)
    line.newest = snapshot.version


def indexes_of(snapshot: Snapshot) -> Indexes:
    return {
        index.name: (index.model_id, tuple(segment.id for segment in index.segments))
        for index in snapshot.indexes
    }


def judge_nothing(line: Line, intent: Intent, snapshot: Snapshot) -> None:
    """An operation that found nothing to do at a version: it must be one that changes nothing there."""
    rows = line.versions[snapshot.version]
    _check_values(intent, Step(rows, rows, line.versions.get(intent.base, rows), line.versions, snapshot))


def _check_values(intent: Intent, step: Step) -> None:
    wanted = plain(step.before)
    optional = intent.apply(wanted, step)
    for key in wanted.keys() | step.after.keys():
        found = step.after[key].values if key in step.after else None
        old = step.before[key].values if key in step.before else None
        allowed = [wanted.get(key)] + ([old] if key in optional else [])
        mixed = key in optional and _mixed(found, wanted.get(key), old)
        assert mixed or any(same_values(found, one) for one in allowed), (
            f"{intent.what} (read at v{intent.base}) as v{step.snapshot.version}: key {key} is {found}, expected "
            f"{' or '.join(map(str, allowed))}; it was {old}"
        )


def _check_lineage(line: Line, step: Step) -> None:
    snapshot, after = step.snapshot, step.after
    operation = snapshot.operation
    ids = [row.row_id for row in after.values()]
    assert len(set(ids)) == len(ids), "two rows have one row id"
    for key, row in after.items():
        assert line.row_ids.setdefault(row.row_id, key) == key, "a row id was given to another row"
        assert row.row_id < snapshot.next_row_id
        assert row.version <= snapshot.version
        old = step.before.get(key)
        if old is None or operation in ("restore", "overwrite", "fast-forward", "transaction"):
            continue
        assert old.row_id == row.row_id, f"{operation} gave key {key} another row id"
        if same_values(old.values, row.values):
            assert row.version in (old.version, snapshot.version)
        elif operation not in ("rename-column", "drop-column"):
            assert row.version == snapshot.version, "a changed row has an old version"
        if operation in LAYOUT_ONLY:
            assert old == row, f"{operation} changed {old} to {row}"


def _mixed(found: dict[str, Any] | None, wanted: dict[str, Any] | None, old: dict[str, Any] | None) -> bool:
    """Whether some of several operations on a row, of which each may apply or not, explain what is found."""
    if found is None or wanted is None or old is None:
        return False
    return all(value in (wanted.get(name), old.get(name)) for name, value in found.items())


def same_values(found: dict[str, Any] | None, wanted: dict[str, Any] | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return {k: v for k, v in found.items() if v is not None} == {
        k: v for k, v in wanted.items() if v is not None
    }


def _check_indexes(step: Step) -> None:
    """A commit changes the indexes that it says it does, and no others."""
    before, after, operation = step.indexes_before, step.indexes_after, step.snapshot.operation
    if operation in INDEX_OPERATIONS:
        said = str(step.snapshot.summary["index"]).split(", ")
        for name in before.keys() | after.keys():
            assert name in said or before.get(name) == after.get(name), (
                f"{operation} of {said} changed {name}"
            )
    elif operation == "overwrite":
        assert after == {name: (model, ()) for name, (model, _) in before.items()}
    elif operation not in ("restore", "fast-forward"):
        assert before == after, f"{operation} changed indexes {before} to {after}"


def check_searches(table: vl.Table, rows: Rows, rng: random.Random) -> None:
    """An exact search, and one by each index that looks at everything, find what the rows say."""
    query, metric, k = _query(rng), rng.choice(["l2", "dot"]), rng.choice([1, 5])
    found = table.knn(query, "v", k, mode="exact", metric=metric, threads=1)
    assert _pairs(found) == _nearest(rows, query, metric)[:k], f"v{table.version}, {k} nearest of {query}"
    for index in table.snapshot.indexes:
        query = _query(rng)
        # A graph may hold nodes that no path reaches.
        graph = index.kind == "graph"
        k = rng.choice([1, 5] if graph else [1, 5, EVERYTHING])
        looked = {"ef" if graph else "nprobe": EVERYTHING, "pool": EVERYTHING}
        found = table.knn(query, "v", k, index=index.name, threads=1, **looked)
        wanted = _nearest(rows, query, index.metric)[:k]
        assert _pairs(found) == wanted, (
            f"v{table.version} by {index.name} ({index.kind}), {k} nearest of {query}"
        )


def _query(rng: random.Random) -> np.ndarray:
    return np.array([rng.randrange(-3, 4) for _ in range(4)], np.float32)


def _pairs(found: pa.Table) -> list[tuple[float, int]]:
    return list(zip(found["distance"].to_pylist(), found["row_id"].to_pylist(), strict=True))


def _nearest(rows: Rows, query: np.ndarray, metric: str) -> list[tuple[float, int]]:
    """Distances and row ids of the rows that have a vector, nearest first; exact for whole numbers."""
    found = []
    for row in rows.values():
        if (vector := row.values.get("v")) is not None:
            other = np.array(vector)
            distance = float(np.square(other - query).sum()) if metric == "l2" else -float(other @ query)
            found.append((distance, row.row_id))
    return sorted(found)


def plain(rows: Rows) -> Values:
    return {key: dict(row.values) for key, row in rows.items()}


def rows_of(table: vl.Table) -> Rows:
    found = table.scan(columns=[*table.schema.names, "_row_id", "_last_updated_version"]).to_arrow()
    rows: Rows = {}
    for row in found.to_pylist():
        key, row_id, version = row.pop("id"), row.pop("_row_id"), row.pop("_last_updated_version")
        assert key not in rows, f"key {key} is there twice"
        rows[key] = Row(row, row_id, version)
    return rows


def replay(before: vl.Table, rows: Rows, after: vl.Table, by: str = "commit") -> Values:
    """The rows of an earlier version with the changes since then applied, as columns of the later one."""
    fields = {field.id: field.name for field in before.snapshot.schema.fields}
    names = {field.name: fields.get(field.id) for field in after.snapshot.schema.fields if field.name != "id"}
    made = {key: {new: row.values.get(old) for new, old in names.items()} for key, row in rows.items()}
    for change in after.changes(before.version, by=by).to_arrow().to_pylist():
        key, kind = change["id"], change["_change_type"]
        if kind in ("delete", "update_preimage"):
            gone = made.pop(key)
            assert gone == {name: change[name] for name in names}, f"{kind} of {key} tells other values"
        else:
            assert key not in made, f"{kind} of key {key}, which is there"
            made[key] = {name: change[name] for name in names}
    return made
