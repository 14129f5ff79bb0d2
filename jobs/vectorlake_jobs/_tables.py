"""Tables as jobs hold them: by reference, at the version that the plan pinned, cut into ranges of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError
from vectorlake.extend import RowRange, Split, StagedRows, Store, TableRef, create_staged, stage_new
from vectorlake.jobs import Task, Work


def pinned(ref: TableRef, version: int) -> TableRef:
    """The table at the version of the plan, whatever version the job was started from."""
    return replace(ref, version=version)


def identity(ref: TableRef) -> dict[str, Any]:
    """What names a table in a job's parameters."""
    return {"uri": ref.uri, "branch": ref.branch}


def split_tasks(splits: Sequence[Split]) -> tuple[Task, ...]:
    """A task for each part of a scan."""
    return tuple(
        Task(
            f"{number:06d}",
            {"ranges": [[one.fragment_id, one.start, one.stop] for one in split.ranges]},
            rows=split.rows,
            bytes=split.nbytes(),
        )
        for number, split in enumerate(splits)
    )


def split_of(task: Task, table: TableRef, columns: Sequence[str], *, batch_size: int | None = None) -> Split:
    """The part of a scan without a filter that a task of `split_tasks` is for."""
    ranges = tuple(RowRange(*known) for known in task.input["ranges"])
    return Split(table, tuple(columns), None, ranges, batch_size)


@dataclass(frozen=True)
class NewTable:
    """The table that a job creates at its end: workers stage its rows, and it appears with all of them.

    Attributes:
        lake: the lake's URI.
        name: the table's name.
        storage_options: the lake's.
    """

    lake: str
    name: str
    storage_options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, lake: vl.Lake, name: str) -> NewTable:
        """The table of that name."""
        return cls(lake.uri, name, tuple(sorted(lake.store.storage_options.items())))

    @property
    def identity(self) -> dict[str, str]:
        """What names it in a job's parameters."""
        return {"lake": self.lake, "table": self.name}

    def open(self) -> vl.Lake:
        """The lake."""
        return vl.connect(self.lake, storage_options=dict(self.storage_options))

    def home(self) -> Store:
        """The folder in which it's going to be."""
        return self.open().folder(self.name)

    def check_free(self) -> None:
        """Refuse to plan what would be in the way of another table.

        Raises:
            AlreadyExistsError: there is a table of that name.
        """
        if self.open().exists(self.name):
            raise AlreadyExistsError(
                f"table {self.name!r} exists already in {self.lake}: choose another name"
            )

    def stage(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], work: Work) -> StagedRows:
        """Write rows, on a worker."""
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        return stage_new(self.open(), self.name, reader, new_id=work.new_id)

    def create(
        self, schema: pa.Schema, staged: Sequence[StagedRows], job_id: str, summary: Mapping[str, Any]
    ) -> vl.Table:
        """Create it; the table that is there if this job created it before.

        Raises:
            AlreadyExistsError: another one has taken the name meanwhile.
        """
        told = {"job": job_id, **summary}
        try:
            return create_staged(self.open(), self.name, schema, staged, summary=told)
        except AlreadyExistsError:
            return self.created_by(job_id)

    def created_by(self, job_id: str) -> vl.Table:
        """The table that is there, if a job has created it.

        Raises:
            AlreadyExistsError: another one has taken the name.
        """
        table = self.open().table(self.name)
        if table.history()[-1].summary.get("job") != job_id:
            raise AlreadyExistsError(
                f"table {self.name!r} was created in {self.lake} meanwhile: drop the job, and choose another name"
            )
        return table


def files_of(staged: StagedRows) -> tuple[str, ...]:
    """The files of staged rows, relative to the table's folder."""
    paths = [file.path for fragment in staged.fragments() for file in fragment.files]
    return (*paths, *(fragment.keys.path for fragment in staged.fragments() if fragment.keys is not None))


def staged_json(staged: StagedRows) -> dict[str, Any]:
    """Staged rows as a task's result."""
    plain: dict[str, Any] = msgspec.to_builtins(staged)
    return plain


def staged_from_json(value: Mapping[str, Any]) -> StagedRows:
    """Staged rows from a task's result."""
    return msgspec.convert(value, StagedRows)
