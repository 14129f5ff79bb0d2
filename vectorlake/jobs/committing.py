"""A job's commit takes place at most once, even if the driver died right after it, or two drivers run one job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from vectorlake.metadata.snapshot import Snapshot
from vectorlake.metadata.tombstone import Tombstone
from vectorlake.plan.commit import Delta
from vectorlake.table.commit import Build
from vectorlake.table.log import TableLog
from vectorlake.table.table import Table

JOB: Final = "job"
"""In the summary of a snapshot: the id of the job that committed it."""


class JobTable(Table):
    """A table whose commits say which job made them; a job that has committed since a version doesn't again."""

    def __init__(
        self, table: Table, job_id: str, *, since: int, summary: Mapping[str, str] | None = None
    ) -> None:
        """`since`: the version that the job had planned from."""
        audit = {**table._context.audit, **(summary or {}), JOB: job_id}
        context = replace(table._context, audit=audit)
        super().__init__(table.name, table._log, table.snapshot, context=context)
        self._job_id = job_id
        self._since = since

    def committed(self) -> Snapshot | None:
        """The snapshot that the job has committed, if it has."""
        return committed_by(
            self._log, self._job_id, since=self._since, head=self._log.latest(after=self.snapshot)
        )

    def _commit(self, build: Build) -> Snapshot:
        checked = self._since

        def once(head: Snapshot) -> Delta | None:
            nonlocal checked
            done = committed_by(self._log, self._job_id, since=checked, head=head)
            checked = head.version
            return None if done is not None else build(head)

        snapshot = super()._commit(once)
        return committed_by(self._log, self._job_id, since=self._since, head=snapshot) or snapshot


def commit_once(
    table: Table, job_id: str, *, since: int, summary: Mapping[str, str] | None = None
) -> JobTable:
    """A handle of the table, at its newest version, that commits for a job, and at most once.

    Args:
        since: the version that the job was planned from: what it committed itself is looked for after that.
        summary: what the snapshot is to say besides.
    """
    found = JobTable(table, job_id, since=since, summary=summary)
    found.refresh()
    return found


def committed_by(log: TableLog, job_id: str, *, since: int, head: Snapshot) -> Snapshot | None:
    """The snapshot after `since`, up to `head`, that a job committed, expired ones included."""
    for version in range(head.version, since, -1):
        found = head if version == head.version else log.entry(version)
        if isinstance(found, Tombstone):
            found = found.original(f"version {version} of {log.store.uri}")
        if found is not None and found.summary.get(JOB) == job_id:
            return found
    return None
