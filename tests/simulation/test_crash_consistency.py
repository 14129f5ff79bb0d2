"""What is committed on local disk has been flushed before the commit can be seen, names and folders included.

Every call that writes, names or flushes a file is recorded while all kinds of commits are made. For each snapshot that got
its name, the record must show that the contents of all files it leads to had been flushed, and after they got their
names, the folders that hold these; and the parents of folders that were made.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.table import key_segments

SNAPSHOT = re.compile(r".*/v\d{20}\.json")
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64()), ("vec", vl.vector(2)), ("blob", vl.blob())])


@dataclass
class Record:
    """The calls in order: flushes by inode, names given and folders made by path."""

    flushed: dict[int, list[int]] = field(default_factory=dict)
    named: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Path → (when, inode)."""
    made: dict[str, int] = field(default_factory=dict)
    clock: int = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def was_flushed(self, inode: int, after: int, before: int) -> bool:
        return any(after <= when < before for when in self.flushed.get(inode, []))


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    record = Record()
    fsync, replace, link, mkdir = os.fsync, os.replace, os.link, os.mkdir

    def flushing(descriptor: int) -> None:
        fsync(descriptor)
        record.flushed.setdefault(os.fstat(descriptor).st_ino, []).append(record.tick())

    def naming(call: Any) -> Any:
        def wrapped(source: Any, target: Any, **options: Any) -> None:
            inode = os.stat(source).st_ino
            call(source, target, **options)
            record.named[os.fspath(target)] = (record.tick(), inode)

        return wrapped

    def making(path: Any, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        record.made[os.fspath(path)] = record.tick()

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(os, "replace", naming(replace))
    monkeypatch.setattr(os, "link", naming(link))
    monkeypatch.setattr(os, "mkdir", making)
    return record


def files_of(table: vl.Table, snapshot: Snapshot) -> set[str]:
    paths = {ref.path for ref in snapshot.manifests}
    for ref in snapshot.manifests:
        for fragment in table._log.manifest(ref).fragments():
            paths |= {file.path for file in fragment.files}
            paths |= {part.path for part in (fragment.deletes, fragment.keys) if part is not None}
    return paths


def check(record: Record, root: Path, table: vl.Table, snapshot: Snapshot, path: str) -> None:
    when, inode = record.named[path]
    assert record.was_flushed(inode, 0, when), f"{path} was named before its contents were flushed"
    for name in files_of(table, snapshot):
        file = f"{root}/{name}"
        named, contents = record.named[file]
        assert named < when, f"{file} had no name when version {snapshot.version} was committed"
        assert record.was_flushed(contents, 0, when), f"the contents of {file} were not flushed"
        folder = os.path.dirname(file)
        assert record.was_flushed(os.stat(folder).st_ino, named, when), f"the name of {file} was not flushed"
        while folder in record.made:
            parent = os.path.dirname(folder)
            made = record.made[folder]
            assert record.was_flushed(os.stat(parent).st_ino, made, when), (
                f"the name of {folder} was not flushed"
            )
            folder = parent
    folder = os.path.dirname(path)
    assert record.was_flushed(os.stat(folder).st_ino, when, record.clock + 1), (
        f"the name of {path} was not flushed"
    )


@pytest.mark.parametrize("formats", ["small", "defaults", "parquet"])
def test_everything_is_flushed_before_a_commit_shows(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch, formats: str
) -> None:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", 1)
    properties = {
        "small": {},
        "defaults": {"write.small-rows": "1"},
        "parquet": {"write.scalar-format": "parquet"},
    }
    lake = vl.connect(tmp_path / "lake")
    table = lake.create_table("ns.t", SCHEMA, primary_key=["id"], properties=properties[formats])
    table.append([{"id": n, "x": n, "vec": [n, 1.0], "blob": b"b" * n} for n in range(6)])
    table.append({"id": [10, 11], "x": [1, 2]})
    table.delete("id = 2")
    table.update({"x": 5}, "id = 3", mode="rows")
    table.update({"x": 6}, "id = 4", mode="columns")
    table.upsert({"id": [4, 20], "x": [7, 8]})
    table.add_column("y", "x * 2")
    table.backfill_column("y", "x", rows="all")
    with table.transaction() as tx:
        tx.append({"id": [30], "x": [1]})
        tx.delete("id = 30")
    dev = table.branch("dev")
    dev.append({"id": [40], "x": [1]})
    table.fast_forward("dev")
    table.compact()
    table.compact(sort_by=[("x", "desc")])
    table.append({"id": [50], "x": [1]})
    table.rewrite_manifests()
    table.restore(5)
    root = tmp_path / "lake" / "ns" / "t"
    commits = [path for path in record.named if SNAPSHOT.fullmatch(path)]
    known = {snapshot.commit_id: snapshot for line in (table, dev) for snapshot in line.history()}
    checked = 0
    for path in commits:
        for snapshot in known.values():
            if snapshot.commit_id in Path(path).read_text():
                check(record, root, table, snapshot, path)
                checked += 1
    assert checked >= len(known) >= 17
