"""The import of an Iceberg table as a job: metadata only, so nothing is shared out, but it is done once and resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError, UnsupportedError
from vectorlake.extend import Store
from vectorlake.jobs import Done, Job, JobRun, Plan, Stage, Task, TaskResult, Work
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import NewTable


@dataclass(frozen=True)
class ImportIceberg(Job):
    """An import without a copy.

    Attributes:
        source: the location of a metadata file, which never changes, or of a table's folder.
        into: the table to create.
        properties: of it.
    """

    source: str
    into: NewTable
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "import"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"source": self.source, "into": self.into.identity, "properties": dict(self.properties)}

    def home(self) -> Store:
        return self.into.home()

    def plan(self) -> Plan:
        self.into.check_free()
        return Plan({}, Stage("import", ()))

    def run(self, task: Task, work: Work) -> TaskResult:
        raise NotImplementedError  # there are no tasks

    def commit(self, done: Done) -> Mapping[str, Any]:
        try:
            import vectorlake_iceberg
        except ImportError as e:
            raise UnsupportedError("Iceberg tables need pyiceberg: pip install 'vectorlake[iceberg]'") from e
        try:
            table = vectorlake_iceberg.import_table(
                self.source,
                self.into.open(),
                self.into.name,
                properties=self.properties,
                summary={"job": done.job_id},
            )
        except AlreadyExistsError:
            table = self.into.created_by(done.job_id)
        return {"table": table.name, "version": 1, "rows": table.history()[-1].num_rows}


def import_iceberg(
    source: str | Any,
    lake: vl.Lake,
    name: str,
    *,
    properties: Mapping[str, str] | None = None,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Register an Iceberg table in a lake without copying a byte; `vectorlake_iceberg.import_table` as a job.

    Args:
        source: the location of a metadata file or of a table's folder, or a table that pyiceberg has loaded.
        lake: where to register it.
        name: its name there.
        properties: further table properties.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Raises:
        AlreadyExistsError, NotFoundError, UnsupportedError, CorruptDataError: as for `import_table`.
    """
    location = source if isinstance(source, str) else str(getattr(source, "metadata_location", source))
    return start(ImportIceberg(location, NewTable.of(lake, name), dict(properties or {})), **options)
