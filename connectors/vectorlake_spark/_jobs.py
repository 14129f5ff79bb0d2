"""Jobs on Spark: each task is a Spark job of one task, so that it ends, fails and is cancelled by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyspark import Broadcast, SparkContext, inheritable_thread_target

from vectorlake.extend import random_id
from vectorlake.jobs import Attempt, Call, Capacity, attempts_on_threads, run_task, worker_died
from vectorlake_spark._session import session


class SparkExecutor:
    """Runs tasks in the workers of a Spark session."""

    def __init__(self, context: SparkContext) -> None:
        self._context = context

    def capacity(self, workers: int | None) -> Capacity:
        """By default as many workers as Spark has cores, each with the cores of a task."""
        threads = int(self._context.getConf().get("spark.task.cpus", "1") or 1)
        count = workers or max(1, self._context.defaultParallelism // threads)
        return Capacity(count, threads, one_machine=str(self._context.master).startswith("local"))

    def run(self, payload: bytes, calls: Sequence[Call], *, workers: int) -> Iterator[Attempt | None]:
        """As every executor does. Closed, it cancels what runs, and interrupts its workers."""
        group = f"vectorlake-{random_id()}"
        sent = self._context.broadcast(payload)
        one = inheritable_thread_target(self._one)
        try:
            yield from attempts_on_threads(
                lambda call: one(group, sent, call),
                calls,
                workers=workers,
                died=lambda call, error: worker_died(call, _reason(error)),
                stop=lambda: self._context.cancelJobGroup(group),
            )
        finally:
            sent.destroy()

    def close(self) -> None:
        """Nothing is kept: the session is the user's."""

    def _one(self, group: str, sent: Broadcast[bytes], call: Call) -> Attempt:
        self._context.setJobGroup(group, f"{call.stage}: {call.task}", interruptOnCancel=True)
        (result,) = (
            self._context.parallelize([call.data], 1).map(lambda data: run_task(sent.value, data)).collect()
        )
        return Attempt.from_bytes(result)


def _reason(error: BaseException) -> str:
    """The first line of what Spark says, which goes on with the traces of two languages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def executor() -> SparkExecutor:
    """The executor of the running session, or of a new one."""
    return SparkExecutor(session().sparkContext)
