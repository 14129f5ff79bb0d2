"""What all commands that start a job share: the options of a run, a bar that moves, and how the outcome is told."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vectorlake.cli.command import command
from vectorlake.cli.progress import progress_bar
from vectorlake.cli.session import Session
from vectorlake.errors import UnsupportedError

if TYPE_CHECKING:
    from types import ModuleType

    from vectorlake.jobs import JobRun, Plan, Progress

_PANEL: Final = "How it runs"
_MIB: Final = 1 << 20

Engine = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", help="local, threads, spark, ray or daft", rich_help_panel=_PANEL
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Tasks at a time [default: what the engine has room for]",
        rich_help_panel=_PANEL,
    ),
]
JobId = Annotated[
    str | None,
    typer.Option(
        "--job-id",
        metavar="ID",
        help="Names the job; with it an interrupted one goes on",
        rich_help_panel=_PANEL,
    ),
]
Memory = Annotated[
    int, typer.Option("--memory-mib", min=32, help="MiB to use, roughly", rich_help_panel=_PANEL)
]
Retries = Annotated[
    int,
    typer.Option("--retries", min=0, help="How often a failed task is tried again", rich_help_panel=_PANEL),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only tell what would be done", rich_help_panel=_PANEL)
]
_PARAMETERS: Final[dict[str, tuple[Any, Any]]] = {
    "engine": (Engine, "local"),
    "workers": (Workers, None),
    "job_id": (JobId, None),
    "memory_mib": (Memory, 1024),
    "retries": (Retries, 2),
    "dry_run": (DryRun, False),
}


@dataclass(frozen=True)
class JobOptions:
    """How a job is to run."""

    engine: str
    workers: int | None
    job_id: str | None
    memory_mib: int
    retries: int
    dry_run: bool

    def run(self, session: Session, start: Callable[..., JobRun | Plan]) -> None:
        """Start a job by a function of `vectorlake_jobs`, and tell what came out of it."""
        from vectorlake.ids import random_id
        from vectorlake.jobs import JobRun

        job_id = self.job_id or random_id()
        if not self.dry_run:
            session.note(f"job {job_id}")
        with progress_bar(session, "working") as advance:

            def told(progress: Progress) -> None:
                advance(*progress.rows)

            done = start(
                engine=self.engine,
                workers=self.workers,
                job_id=job_id,
                memory_limit=self.memory_mib * _MIB,
                retries=self.retries,
                progress=told,
                dry_run=self.dry_run,
            )
        if isinstance(done, JobRun):
            _tell_run(session, done)
        else:
            _tell_plan(session, done)


def _tell_run(session: Session, done: JobRun) -> None:
    if session.json:
        failures = [str(failure) for failure in done.failures]
        record = {"job": done.job_id, "outcome": dict(done.outcome), "executed": done.executed}
        session.document({**record, "reused": done.reused, "failures": failures})
        return
    outcome = ", ".join(f"{name} {_short(value)}" for name, value in done.outcome.items())
    again = f", {done.reused:,} done before" if done.reused else ""
    session.out.print(f"{outcome} ({done.executed:,} tasks{again})", soft_wrap=True)


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _tell_plan(session: Session, plan: Plan) -> None:
    if session.json:
        facts = {"stage": plan.stage.name, "tasks": len(plan.stage.tasks), "rows": plan.rows}
        session.document({"plan": {**facts, "bytes": plan.bytes, "sources": plan.sources}})
    else:
        session.out.print(str(plan), soft_wrap=True)


def job_command(group: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the command that starts a job; its first parameters are the session and `JobOptions`."""

    def register(body: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(body, eval_str=True).parameters.values())
        keyword = inspect.Parameter.KEYWORD_ONLY

        def run(session: Session, **arguments: Any) -> None:
            options = JobOptions(**{key: arguments.pop(key) for key in _PARAMETERS})
            body(session, options, **arguments)

        more = [
            inspect.Parameter(key, keyword, annotation=kind, default=default)
            for key, (kind, default) in _PARAMETERS.items()
        ]
        parameters = [own[0], *(one.replace(kind=keyword) for one in own[2:]), *more]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        run.__name__, run.__doc__ = body.__name__, body.__doc__
        command(group, name)(run)
        return body

    return register


def jobs_module() -> ModuleType:
    """The package of the jobs, which is loaded when one is started.

    Raises:
        UnsupportedError: something that it needs is not installed.
    """
    try:
        import vectorlake_jobs
    except ImportError as e:
        raise UnsupportedError(f"jobs can't be loaded ({e}): pip install 'vectorlake[jobs]'") from e
    return vectorlake_jobs
