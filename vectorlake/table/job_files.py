"""Files of jobs that are not finished, to which no version refers yet; and records of jobs that nobody will resume."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import msgspec

from vectorlake.errors import NotFoundError
from vectorlake.metadata.job import FOLDER, OUTCOME, RESULTS
from vectorlake.store.protocol import ObjectInfo, Store
from vectorlake.table.store_clock import modified_ms

LIFE: Final = dt.timedelta(days=7)
"""A job of which nothing was written down for longer is dead: it can't be resumed any more, and its files are orphans."""


@dataclass(frozen=True)
class JobFiles:
    """What the records of a table's jobs say about files, relative to the table's folder.

    Attributes:
        kept: files that jobs which may still commit have written.
        dead: the records of jobs that are over, each job's own record last.
    """

    kept: frozenset[str] = frozenset()
    dead: tuple[ObjectInfo, ...] = ()


def job_files(store: Store, now_ms: int) -> JobFiles:
    """Read the records of a table's jobs; `now_ms` is by the store's clock."""
    kept: set[str] = set()
    dead: list[ObjectInfo] = []
    listed = sorted((*store.list(FOLDER), *store.leftovers(FOLDER)), key=lambda info: info.path)
    for _, group in groupby(listed, key=lambda info: info.path.split("/")[1]):
        records = list(group)
        if all(info.path.count("/") != 2 or not info.path.endswith(f"/{OUTCOME}") for info in records):
            kept.update(_written(store, records))
        if max(map(modified_ms, records)) < now_ms - int(LIFE.total_seconds() * 1000):
            # A job without its own record is none, so that comes last.
            dead += sorted(records, key=lambda info: (info.path.count("/") == 2, info.path))
    return JobFiles(frozenset(kept), tuple(dead))


def _written(store: Store, records: list[ObjectInfo]) -> Iterator[str]:
    for info in records:
        if f"/{RESULTS}/" not in info.path or not info.path.endswith(".json"):
            continue
        try:
            yield from msgspec.json.decode(store.get(info.path), type=_Files).files
        except (NotFoundError, msgspec.DecodeError):
            continue  # dropped meanwhile; or damaged, so that nobody can commit it


class _Files(msgspec.Struct):
    """The part of a task's record that matters here."""

    files: tuple[str, ...] = ()
