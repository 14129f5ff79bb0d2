"""A job's folder in a store: what it is, its plan, what was done and why something was not, each written once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from vectorlake.errors import AlreadyExistsError, CorruptDataError, InvalidInputError, NotFoundError
from vectorlake.ids import NewId
from vectorlake.metadata import job as names
from vectorlake.metadata.job import Failure, JobRecord, OutcomeRecord, Plan, Stage, TaskRecord
from vectorlake.store.protocol import Store

S = TypeVar("S", bound=msgspec.Struct)
_THREADS: Final = 16


class JobFolder:
    """What is written down about one job, in the folder of the table that it writes.

    Every record is put if absent, so of several drivers or workers of one job the first one's counts.
    """

    def __init__(self, home: Store, job_id: str) -> None:
        if not isinstance(job_id, str) or not names.NAME.fullmatch(job_id):
            raise InvalidInputError(
                f"{job_id!r} can't be a job's id: write up to 100 letters, digits, '_', '-' and '.'"
            )
        self.home = home
        self.id = job_id
        self._folder = names.folder_of(job_id)

    @property
    def scratch(self) -> Store:
        """The folder for what passes between tasks."""
        return self.home.child(f"{self._folder}/{names.SCRATCH}")

    def begin(self, record: JobRecord) -> JobRecord:
        """Write down what the job is; the record that is there if it was begun before."""
        return self._put(names.RECORD, record)

    def record(self) -> JobRecord:
        """What the job is.

        Raises:
            NotFoundError: there is no job of that id here.
        """
        found = self._get(names.RECORD, JobRecord)
        if found is None:
            raise NotFoundError(
                f"there is no job {self.id!r} at {self.home.uri}: see which there are with list_jobs"
            )
        return found

    def plan(self) -> Plan | None:
        """What was planned, if it was yet."""
        return self._get("plan.json", Plan)

    def put_plan(self, plan: Plan) -> Plan:
        """Write down the plan; the one that is there if another driver was quicker."""
        return self._put("plan.json", plan)

    def stage(self, number: int) -> Stage | None:
        """A stage after the first, if it was planned yet."""
        return self._get(f"stage-{number}.json", Stage)

    def put_stage(self, number: int, stage: Stage) -> Stage:
        """Write down a stage; the one that is there if another driver was quicker."""
        return self._put(f"stage-{number}.json", stage)

    def outcome(self) -> OutcomeRecord | None:
        """How the job ended, if it did."""
        return self._get(names.OUTCOME, OutcomeRecord)

    def put_outcome(self, outcome: OutcomeRecord) -> OutcomeRecord:
        """Write down how the job ended."""
        return self._put(names.OUTCOME, outcome)

    def put_result(self, stage: str, result: TaskRecord) -> TaskRecord:
        """Write down that a task is done; the record that is there if another attempt was quicker."""
        return self._put(self._result(stage, result.task), result)

    def results(self, stage: str) -> dict[str, TaskRecord]:
        """The tasks of a stage that are done, by id."""
        paths = [info.path for info in self.home.list(f"{self._folder}/{names.RESULTS}/{stage}")]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda path: self._read(path, TaskRecord), paths)
            return {one.task: one for one in found if one is not None}

    def usable_results(self, stage: str) -> dict[str, TaskRecord]:
        """Those of which no file is gone; the records of the others are removed, and their tasks are to be done again."""
        found = self.results(stage)
        with ThreadPoolExecutor(_THREADS) as pool:
            whole = dict(zip(found, pool.map(self._whole, found.values()), strict=True))
        self.home.delete([f"{self._folder}/{self._result(stage, task)}" for task in found if not whole[task]])
        return {task: one for task, one in found.items() if whole[task]}

    def put_failure(self, failure: Failure, *, new_id: NewId) -> None:
        """Keep why an attempt failed."""
        path = f"{names.FAILURES}/{failure.stage}-{failure.task}-{new_id()[:8]}.json"
        self._put(path, failure)

    def failures(self) -> list[Failure]:
        """Why attempts failed, of this run and earlier ones."""
        paths = [info.path for info in self.home.list(f"{self._folder}/{names.FAILURES}")]
        return [failure for path in paths if (failure := self._read(path, Failure)) is not None]

    # --- cancelling

    def cancel(self) -> None:
        """Ask whoever runs the job to stop."""
        self.home.put(f"{self._folder}/{names.CANCEL}", b"")

    def cancelled(self) -> bool:
        """Whether the job was asked to stop."""
        return _exists(self.home, f"{self._folder}/{names.CANCEL}")

    def resume(self) -> None:
        """Go on: whoever cancelled it did so before, and orphan collection counts its age from now."""
        self.home.put(f"{self._folder}/{names.STARTED}", b"")
        if self.cancelled():
            self.home.delete([f"{self._folder}/{names.CANCEL}"])

    # --- removing

    def remove_scratch(self) -> None:
        """Remove what passed between tasks."""
        self._remove(f"{self._folder}/{names.SCRATCH}")

    def remove(self) -> None:
        """Remove all records, the one that says that there is such a job last."""
        last = f"{self._folder}/{names.RECORD}"
        self._remove(self._folder, but=last)
        self.home.delete([last])

    def _remove(self, prefix: str, *, but: str = "") -> None:
        listed = (*self.home.list(prefix), *self.home.leftovers(prefix))
        self.home.delete([info.path for info in listed if info.path != but])

    # --- the insides

    @staticmethod
    def _result(stage: str, task: str) -> str:
        return f"{names.RESULTS}/{stage}/{task}.json"

    def _whole(self, record: TaskRecord) -> bool:
        return all(_exists(self.home, path) for path in record.files)

    def _put(self, path: str, value: S) -> S:
        full = f"{self._folder}/{path}"
        try:
            self.home.put_new(full, msgspec.json.encode(value))
        except AlreadyExistsError:
            # Another was quicker, or this one was and its reply got lost.
            there = self._read(full, type(value))
            if there is None:
                raise
            return there
        return value

    def _get(self, path: str, kind: type[S]) -> S | None:
        return self._read(f"{self._folder}/{path}", kind)

    def _read(self, path: str, kind: type[S]) -> S | None:
        try:
            data = self.home.get(path)
        except NotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as e:
            raise CorruptDataError(
                f"{self.home.uri}/{path} is damaged ({e}): drop job {self.id!r} and start it under another id"
            ) from e


def job_ids(home: Store) -> Iterator[str]:
    """The ids of the jobs of which there are records, in order."""
    told = ""
    for info in home.list(names.FOLDER):
        job_id = info.path.removeprefix(f"{names.FOLDER}/").partition("/")[0]
        if job_id != told:
            told = job_id
            yield job_id


def check_parameters(before: JobRecord, name: str, parameters: dict[str, Any]) -> None:
    """Refuse to go on with a job that was begun otherwise; `parameters` are plain JSON, as `before` has them.

    Raises:
        InvalidInputError: names what differs.
    """
    if before.name != name:
        raise InvalidInputError(
            f"job {before.id!r} is a {before.name}, not a {name}: start the {name} under another id"
        )
    was, now = dict(_leaves(before.parameters)), dict(_leaves(parameters))
    changes = [
        f"{key} (was {was.get(key)!r}, is {now.get(key)!r})"
        for key in sorted({*was, *now})
        if was.get(key) != now.get(key)
    ]
    if changes:
        raise InvalidInputError(
            f"job {before.id!r} was begun with other parameters: {', '.join(changes)}; start it as before, or under "
            "another id"
        )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested JSON objects, by path."""
    if isinstance(value, dict) and value:
        for key, member in value.items():
            yield from _leaves(member, f"{path}.{key}" if path else key)
    else:
        yield path, value


def check_names(stage: Stage, seen: Sequence[str]) -> None:
    """Refuse what can't be told apart or written down.

    Raises:
        InvalidInputError: names the stage or task.
    """
    ids = [task.id for task in stage.tasks]
    for name in (stage.name, *ids):
        if not names.NAME.fullmatch(name):
            raise InvalidInputError(
                f"{name!r} can't name a stage or task: write letters, digits, '_', '-' and '.'"
            )
    if stage.name in seen or len(set(ids)) != len(ids):
        raise InvalidInputError(f"stage {stage.name!r}, or a task in it, is there twice")


def _exists(store: Store, path: str) -> bool:
    try:
        store.head(path)
    except NotFoundError:
        return False
    return True
