"""What all commands share: common options, the lake that the environment may name, and how they end."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand

from vectorlake.cli.failure import ExitCode, error_line, exit_code
from vectorlake.cli.session import Session, parse_pairs
from vectorlake.clock import system_clock
from vectorlake.errors import VectorlakeError

LAKE_VARIABLE: Final = "VECTORLAKE_LAKE"
_COMMON: Final = "Common options"

Lake = Annotated[
    str,
    typer.Argument(
        metavar="LAKE",
        show_default=False,
        help=f"Folder or URI of the lake. Leave it out where --lake or {LAKE_VARIABLE} names it.",
    ),
]
TableName = Annotated[
    str, typer.Argument(metavar="TABLE", show_default=False, help="Name of the table: namespace.table")
]
AtVersion = Annotated[
    str | None,
    typer.Option(
        "--version", metavar="VERSION", help="A version number, a tag, or a time such as 2026-01-31T12:00Z"
    ),
]
Columns = Annotated[
    str | None, typer.Option("--columns", metavar="A,B,…", help="Columns, in the order wanted")
]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="SQL", help='Only rows for which this is true, e.g. "price > 3"'),
]

Json = Annotated[
    bool,
    typer.Option(
        "--json", help="JSON on standard output: one object, or one a line for rows", rich_help_panel=_COMMON
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error", rich_help_panel=_COMMON)
]
LakeOption = Annotated[
    str | None,
    typer.Option(
        "--lake",
        metavar="URI",
        envvar=LAKE_VARIABLE,
        help="The lake, instead of LAKE",
        rich_help_panel=_COMMON,
    ),
]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="Credentials, region, endpoint, …; repeatable",
        rich_help_panel=_COMMON,
    ),
]
_PARAMETERS: Final = {
    "lake_option": (LakeOption, None),
    "storage_option": (StorageOptions, None),
    "json": (Json, False),
    "debug": (Debug, False),
}

Body = Callable[..., int | None]
"""A command's work: takes the session and its own arguments; returns an exit code, or None for success."""
B = TypeVar("B", bound=Body)


class LakeCommand(TyperCommand):
    """A command whose argument LAKE may be left out when --lake or the environment names the lake."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        names = [param.name for param in self.get_params(ctx) if param.param_type_name == "argument"]
        if "lake" not in names:
            return parser
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            parsed = parse(args=args)
            options = parsed[0]
            lake = (
                options.get("lake_option")
                or (ctx.obj or {}).get("lake_option")
                or os.environ.get(LAKE_VARIABLE)
            )
            # The number of arguments is fixed, so one too few means that the lake was left out.
            if lake and not isinstance(options.get(names[-1]), str):
                values = [options.get(name) for name in names]
                at = names.index("lake")
                values[at:] = [lake, *values[at:-1]]
                options.update(zip(names, values, strict=True))
            return parsed

        setattr(parser, "parse_args", parse_args)  # noqa: B010
        return parser


def command(app: typer.Typer, name: str, *, writes: bool = False, **settings: Any) -> Callable[[B], B]:
    """Register a function as a command with the common options; its first parameter is the session.

    `writes`: it commits, so an interrupt has to tell whether anything was.
    """

    def register(function: B) -> B:
        app.command(name, cls=LakeCommand, **settings)(_with_common_options(function, writes=writes))
        return function

    return register


def _with_common_options(function: Body, *, writes: bool) -> Callable[..., None]:
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

    def run(**arguments: Any) -> None:
        ctx: typer.Context = arguments.pop("ctx")
        common = {key: arguments.pop(key) for key in _PARAMETERS}
        for key, value in (ctx.obj or {}).items():
            common[key] = common[key] or value
        session = Session(json=common["json"], debug=common["debug"])
        started_ms = system_clock()
        try:
            options = parse_pairs(common["storage_option"] or [], "--storage-option")
            session = Session(json=session.json, debug=session.debug, storage_options=options)
            code = function(session, **arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except KeyboardInterrupt:
            since_ms = started_ms if writes else None
            _tell_interrupt(
                session, since_ms=since_ms, lake=arguments.get("lake"), table=arguments.get("table")
            )
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except VectorlakeError as e:
            if session.debug:
                raise
            raise typer.Exit(tell_error(session, e)) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as e:  # the last stop: what nobody foresaw is told in one line as well
            if session.debug:
                raise
            raise typer.Exit(tell_error(session, e)) from None
        if code:
            raise typer.Exit(int(code))

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(key, keyword, annotation=kind, default=default)
            for key, (kind, default) in _PARAMETERS.items()
        ),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def tell_error(session: Session, error: BaseException) -> int:
    """Print an error in one line on standard error, and return the exit code for it."""
    code = exit_code(error)
    if session.json:
        from vectorlake.cli.values import to_json

        fields = {"error": type(error).__name__, "message": str(error), "exit_code": int(code)}
        sys.stderr.write(to_json(fields) + "\n")
    else:
        from rich.text import Text

        session.err.print(Text.assemble(("error: ", "bold red"), (error_line(error), "red")), soft_wrap=True)
    return code


def _tell_interrupt(session: Session, *, since_ms: int | None, lake: Any, table: Any) -> None:
    """Say that the command was interrupted and, for one that writes, whether it had committed by then."""
    message = "interrupted"
    if since_ms is not None:
        committed = _committed_since(session, since_ms, lake, table)
        # The commit is one atomic step, so only a Ctrl-C that came after it can find anything committed.
        message += f"; but {committed} was committed" if committed else "; nothing was committed"
    session.err.print(message, style="yellow", soft_wrap=True)


def _committed_since(session: Session, since_ms: int, lake: str, table: str) -> str | None:
    try:
        snapshot = session.table(lake, table).snapshot
    except VectorlakeError:
        return None
    return f"version {snapshot.version} ({snapshot.operation})" if snapshot.timestamp_ms >= since_ms else None


def _discard_output() -> None:
    """Send what is still buffered nowhere: the reader of our output has gone, and that is no error."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
