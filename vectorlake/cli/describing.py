"""Commands that tell what is there: ls, info, schema, history, files."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vectorlake.cli.command import AtVersion, Lake, TableName, command
from vectorlake.cli.output import Side, facts, listing
from vectorlake.cli.session import Session
from vectorlake.cli.values import from_ms, moment, short, size

if TYPE_CHECKING:
    from vectorlake.metadata.snapshot import Snapshot
    from vectorlake.schema import Field
    from vectorlake.table.table import Table

PANEL = "Look"
_ELSEWHERE: Final = frozenset(
    {
        *("application", "principal"),
        *("added_fragments", "changed_fragments", "removed_fragments", "added_files", "added_bytes"),
    }
)
"""Members of a summary that `history` shows in a column of their own, or leaves to `inspect`."""


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    command(app, "ls", rich_help_panel=PANEL)(ls)
    command(app, "info", rich_help_panel=PANEL)(info)
    command(app, "schema", rich_help_panel=PANEL)(schema)
    command(app, "history", rich_help_panel=PANEL)(history)
    command(app, "files", rich_help_panel=PANEL)(files)


def ls(
    session: Session,
    lake: Lake,
    namespace: Annotated[
        str | None, typer.Option("--namespace", help="Only the tables of this namespace")
    ] = None,
) -> None:
    """List the tables of a lake."""
    opened = session.lake(lake)

    def records() -> Iterator[dict[str, Any]]:
        for name in opened.tables(namespace):
            table = opened.table(name)
            yield {
                "table": name,
                "rows": table.snapshot.num_rows,
                "columns": len(table.schema),
                "version": table.version,
                "committed": from_ms(table.snapshot.timestamp_ms),
            }

    sides: dict[str, Side] = {
        "table": "left",
        "rows": "right",
        "columns": "right",
        "version": "right",
        "committed": "fixed",
    }
    listing(session, _shown(records(), session, "rows"), sides, empty=f"no tables in {opened.uri}")


def info(session: Session, lake: Lake, table: TableName, version: AtVersion = None) -> None:
    """Tell a table's size, formats, version and origin."""
    opened = session.table(lake, table, version)
    snapshot = opened.snapshot
    found = _file_totals(opened)
    record = {
        "table": opened.name,
        "uri": opened.uri,
        "table_id": snapshot.table_id,
        "format_version": snapshot.format_version,
        "version": snapshot.version,
        "committed": from_ms(snapshot.timestamp_ms),
        "operation": snapshot.operation,
        "rows": snapshot.num_rows,
        "deleted_rows": sum(manifest.deleted for manifest in snapshot.manifests),
        "columns": len(snapshot.schema.fields),
        "fragments": snapshot.num_fragments,
        **found,
        "primary_key": [
            column.name for key in snapshot.primary_key if (column := snapshot.schema.by_id(key))
        ],
        "properties": dict(snapshot.properties),
        "tags": {tag.name: tag.version for tag in opened.tags()},
    }
    facts(session, record, dict(_info_lines(opened, record)))


def _info_lines(table: Table, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "table", record["table"]
    yield "where", record["uri"]
    yield "version", f"{record['version']}, {record['operation']}, {moment(record['committed'])}"
    deleted = f" ({record['deleted_rows']:,} more deleted)" if record["deleted_rows"] else ""
    yield "rows", f"{record['rows']:,} in {record['fragments']:,} fragments{deleted}"
    yield "columns", f"{record['columns']}: {', '.join(table.snapshot.schema.names)}"
    for name, group in record["formats"].items():
        where = f"{size(group['own_bytes'])} of our own" if group["own_bytes"] else ""
        foreign = (
            f"{size(group['foreign_bytes'])} where the source keeps them" if group["foreign_bytes"] else ""
        )
        yield name, f"{group['files']:,} files, {' and '.join(filter(None, (where, foreign))) or '0 bytes'}"
    if record["primary_key"]:
        yield "primary key", ", ".join(record["primary_key"])
    if record["tags"]:
        yield "tags", ", ".join(f"{name} = version {version}" for name, version in record["tags"].items())
    if location := record["properties"].get("iceberg.metadata-location"):
        name = record["properties"].get("iceberg.identifier")
        yield "source", f"Iceberg table {name}, {location}" if name else f"Iceberg table {location}"
    for key, value in record["properties"].items():
        if not key.startswith("iceberg."):
            yield key, short(value)
    yield "id", record["table_id"]


def _file_totals(table: Table) -> dict[str, Any]:
    """Files and bytes in all and by format; a file that several fragments share counts once."""
    seen: set[str] = set()
    files: Counter[str] = Counter()
    own: Counter[str] = Counter()
    foreign: Counter[str] = Counter()
    for fragment in table.view.fragments():
        for file in fragment.files:
            if file.path not in seen:
                seen.add(file.path)
                files[file.format] += 1
                (foreign if file.foreign else own)[file.format] += file.size
    formats = {
        name: {"files": files[name], "own_bytes": own[name], "foreign_bytes": foreign[name]}
        for name in sorted(files)
    }
    return {
        "files": files.total(),
        "own_bytes": own.total(),
        "foreign_bytes": foreign.total(),
        "formats": formats,
    }


def schema(session: Session, lake: Lake, table: TableName, version: AtVersion = None) -> None:
    """Show the columns: field ids, names, types, defaults."""
    from vectorlake.schema import describe

    opened = session.table(lake, table, version)

    def record(field: Field) -> dict[str, Any]:
        found = {"id": field.id, "name": field.name, "type": describe(field.type, field.logical)}
        found |= {"nullable": field.nullable, "default": field.default}
        return found | {"fields": [record(child) for child in _named_children(field)]}

    fields = [record(field) for field in opened.snapshot.schema.fields]
    if session.json:
        session.document({"table": opened.name, "version": opened.version, "fields": fields})
        return
    shown = [
        {**entry, "name": "  " * depth + entry["name"], "nullable": "" if entry["nullable"] else "not null"}
        for field in fields
        for depth, entry in _flat(field, 0)
    ]
    for entry in shown:
        entry["default"] = "" if entry["default"] is None else short(entry["default"])
        entry["constraint"] = entry.pop("nullable")
    sides: dict[str, Side] = {"id": "right", "name": "left", "type": "left"}
    sides |= {key: "left" for key in ("constraint", "default") if any(entry[key] for entry in shown)}
    listing(session, shown, sides, empty="no columns")


def _named_children(field: Field) -> tuple[Field, ...]:
    """The fields below with names of their own: a vector's element says nothing that its type doesn't."""
    from vectorlake.schema import ListType, StructType

    if isinstance(field.type, ListType):
        return _named_children(field.type.element)
    return field.children() if isinstance(field.type, StructType) else ()


def _flat(record: dict[str, Any], depth: int) -> Iterator[tuple[int, dict[str, Any]]]:
    yield depth, {key: value for key, value in record.items() if key != "fields"}
    for child in record["fields"]:
        yield from _flat(child, depth + 1)


def history(
    session: Session,
    lake: Lake,
    table: TableName,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many, the newest")] = None,
) -> None:
    """Show every version: when, which operation, by whom, what it changed. The audit log."""
    opened = session.table(lake, table)
    names = {tag.version: tag.name for tag in opened.tags()}

    def record(snapshot: Snapshot) -> dict[str, Any]:
        return {
            "version": snapshot.version,
            "committed": from_ms(snapshot.timestamp_ms),
            "operation": snapshot.operation,
            "rows": snapshot.num_rows,
            "application": snapshot.application,
            "principal": snapshot.principal,
            "summary": snapshot.summary,
            "tag": names.get(snapshot.version),
            "parent": snapshot.parent,
            "commit_id": snapshot.commit_id,
        }

    records = [record(snapshot) for snapshot in opened.history()[:limit]]
    if not session.json:
        for entry in records:
            entry["rows"] = f"{entry['rows']:,}"
            entry["tag"] = entry["tag"] or ""
            entry["by"] = _by(entry["principal"], entry["application"])
            entry["what"] = _told(entry["summary"])
    sides: dict[str, Side] = {"version": "right", "committed": "fixed", "operation": "fixed", "rows": "right"}
    sides |= {"tag": "left"} if names else {}
    sides |= {"by": "left"} if any(entry.get("by") for entry in records) else {}
    listing(session, records, {**sides, "what": "left"}, empty="no versions")


def _by(principal: str | None, application: str | None) -> str:
    """Who committed, as far as they said: this library's own name says nothing."""
    named = (
        ""
        if application is None or application.startswith(("vectorlake/", "vectorlake-cli/"))
        else application
    )
    return " with ".join(filter(None, (principal, named)))


def _told(summary: Mapping[str, Any]) -> str:
    """What a commit changed, counts first; where a source lies, `info` tells, and which files, `inspect`."""
    kept = {
        key: value
        for key, value in summary.items()
        if value != 0 and not key.startswith("source") and key not in _ELSEWHERE
    }
    ordered = sorted(kept.items(), key=lambda item: not isinstance(item[1], int))
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in ordered)


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else short(value)


def files(session: Session, lake: Lake, table: TableName, version: AtVersion = None) -> None:
    """List the data files of a version: format, columns, rows, bytes, and whether they are the source's."""
    opened = session.table(lake, table, version)

    def records() -> Iterator[dict[str, Any]]:
        for fragment in opened.view.fragments():
            for file in fragment.files:
                yield {
                    "fragment": fragment.id,
                    "path": file.path,
                    "format": file.format,
                    "columns": [column.name for column in file.layout.fields],
                    "rows": file.row_stop - file.row_start,
                    "row_start": file.row_start,
                    "bytes": file.size,
                    "foreign": file.foreign,
                    "deleted_rows": fragment.deletes.cardinality if fragment.deletes else 0,
                    "sequence": file.sequence,
                    "checksum": file.checksum,
                }

    def shown() -> Iterator[dict[str, Any]]:
        for record in records():
            columns = record["columns"]
            record["columns"] = (
                ", ".join(columns) if len(columns) < 4 else f"{columns[0]} … {columns[-1]} ({len(columns)})"
            )
            record["rows"], record["size"] = f"{record['rows']:,}", size(record["bytes"])
            record["whose"] = "source" if record["foreign"] else "own"
            record["path"] = _tail(record["path"], session.out.width)
            yield record

    sides: dict[str, Side] = {"fragment": "right", "format": "left", "rows": "right", "size": "right"}
    sides |= {"whose": "left", "columns": "left", "path": "left"}
    listing(session, records() if session.json else shown(), sides, empty="no data files")


def _tail(path: str, width: int) -> str:
    """The end of a path, which tells files apart, where the whole of it has no room."""
    room = max(width - 64, 16)
    return path if len(path) <= room else "…" + path[-(room - 1) :]


def _shown(records: Iterator[dict[str, Any]], session: Session, *counts: str) -> Iterator[dict[str, Any]]:
    """Records with counts grouped by thousands, for people."""
    for record in records:
        if not session.json:
            record |= {key: f"{record[key]:,}" for key in counts}
            record |= {key: moment(value) for key, value in record.items() if isinstance(value, dt.datetime)}
        yield record
