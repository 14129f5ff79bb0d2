"""A job for tests: counts the rows of a table task by task, marks each execution in a folder, and appends one row."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.extend import Store
from vectorlake.jobs import Done, Job, Plan, Stage, Task, TaskResult, Work, commit_once, run_job


@dataclass(frozen=True)
class CountJob(Job):
    """Counts in tasks of ten ids each; then, in a second stage, adds the counts up."""

    uri: str
    marks: str
    tasks: int = 4
    faults: Mapping[str, str] = field(default_factory=dict)
    """By task, what goes wrong while the file `<marks>/fault-<task>` exists: raise, invalid, exit, wait."""

    @property
    def name(self) -> str:
        return "count"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"uri": self.uri, "tasks": self.tasks}

    def home(self) -> Store:
        return vl.open_table(self.uri).store

    def plan(self) -> Plan:
        self.mark("plan")
        tasks = tuple(Task(f"t{n}", {"low": 10 * n}, rows=10, bytes=80) for n in range(self.tasks))
        return Plan({"table": vl.open_table(self.uri).version}, Stage("count", tasks))

    def mark(self, what: str) -> None:
        Path(self.marks, f"{what}-{time.time_ns()}-{os.getpid()}").touch()

    def marked(self, what: str) -> int:
        return len(list(Path(self.marks).glob(f"{what}-*")))

    def run(self, task: Task, work: Work) -> TaskResult:
        self.mark(f"run-{task.id}")
        self._fail(task.id)
        if work.stage.name == "add":
            return TaskResult({"count": sum(work.stage.shared["counts"])})
        table = vl.open_table(self.uri).at(work.sources["table"])
        low = task.input["low"]
        path = f"data/{work.new_id()}.bin"
        work_file = vl.open_table(self.uri).store
        work_file.put(path, b"kept until the job commits")
        return TaskResult({"count": table.count(f"id >= {low} AND id < {low + 10}")}, (path,))

    def _fail(self, task: str) -> None:
        fault = Path(self.marks, f"fault-{task}")
        while fault.exists():
            match self.faults.get(task):
                case "raise":
                    fault.unlink()
                    raise RuntimeError("no luck this time")
                case "always":
                    raise RuntimeError("never any luck")
                case "invalid":
                    raise InvalidInputError("row ids 3 to 5 have no values")
                case "exit":
                    fault.unlink()
                    os._exit(7)
                case _:
                    time.sleep(0.02)

    def next_stage(self, done: Done) -> Stage | None:
        if len(done.stages) == 2:
            return None
        counts = [value["count"] for value in done.values]
        return Stage("add", (Task("all"),), {"counts": counts})

    def commit(self, done: Done) -> Mapping[str, Any]:
        self.mark("commit")
        since = done.sources["table"]
        table = commit_once(vl.open_table(self.uri), done.job_id, since=since)
        snapshot = table.append({"id": [-done.values[0]["count"]]})
        self._fail("commit")
        return {"version": snapshot.version, "count": done.values[0]["count"]}


if __name__ == "__main__":
    uri, marks, fault = sys.argv[1:]
    print(run_job(CountJob(uri, marks, faults={fault: "wait"}), job_id="j", workers=2))
