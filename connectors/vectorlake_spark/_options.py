"""What users say of a table in options: where it lies, which version, and how it is read and written."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from vectorlake import InvalidInputError, Lake, Table, UnsupportedError, connect, open_table
from vectorlake.extend import MetadataTable, did_you_mean

_NAMES: Final = (
    *("path", "uri", "table", "version", "tag", "branch", "timestamp", "columns", "filter", "rowIds"),
    *("metadata", "rowsPerPartition", "mode", "primaryKey", "streamId", "fromVersion", "changes"),
    *("maxVersionsPerTrigger", "maxRowsPerTrigger", "pushFilters"),
)
_KNOWN: Final = {name.lower(): name for name in _NAMES}
_PREFIXES: Final = ("storage.", "property.", "vector.")
_SPARKS_OWN: Final = frozenset({"checkpointlocation", "queryname", "outputmode"})
"""What Spark hands on besides what the user wrote."""


@dataclass(frozen=True)
class Location:
    """A table: its folder, or a lake and the table's name in it."""

    uri: str
    table: str | None = None
    storage_options: Mapping[str, str] = field(default_factory=dict)
    branch: str | None = None

    def open(self) -> Table:
        """The table at its newest version, or its branch's.

        Raises:
            NotFoundError: there is no table there.
        """
        if self.table is None:
            table = open_table(self.uri, storage_options=self.storage_options)
        else:
            table = connect(self.uri, storage_options=self.storage_options).table(self.table)
        return table if self.branch is None else table.checkout(self.branch)

    def lake(self) -> tuple[Lake, str]:
        """The lake in which the table lies or would lie, and its name there.

        Raises:
            InvalidInputError: the folder lies too near the root to be a table of a lake.
        """
        if self.table is not None:
            return connect(self.uri, storage_options=self.storage_options), self.table
        uri = connect(self.uri, storage_options=self.storage_options).uri
        scheme, separator, rest = uri.partition("://")
        *root, namespace, name = ["", "", *rest.rstrip("/").split("/")]
        if not namespace or not name or len(root) < 3:
            raise InvalidInputError(
                f"there is no table at {uri}, and one can't be created there: a table lies in a lake and a "
                f"namespace, such as {scheme}{separator}lake/namespace/table; or give the lake as path and the "
                'name as .option("table", "namespace.table")'
            )
        lake = scheme + separator + "/".join(root[2:])
        return connect(lake, storage_options=self.storage_options), f"{namespace}.{name}"


@dataclass(frozen=True)
class Options:
    """The options of one read or write, as strings still where the reader or writer knows their meaning."""

    location: Location
    version: str | None = None
    tag: str | None = None
    timestamp: str | None = None
    columns: tuple[str, ...] | None = None
    filter: str | None = None
    row_ids: bool = False
    push_filters: bool = False
    metadata: MetadataTable | None = None
    rows_per_partition: int | None = None
    mode: str | None = None
    primary_key: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, str] = field(default_factory=dict)
    stream_id: str | None = None
    from_version: str | None = None
    changes: str | None = None
    max_versions: int | None = None
    max_rows: int | None = None

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Self:
        """The options of a read or write.

        Raises:
            InvalidInputError: an option that means nothing, two that exclude each other, or no path.
        """
        given = {key.lower(): value for key, value in options.items()}
        if "provider" not in given:  # else this is CREATE TABLE, which hands on all properties of the table
            _check_names(given)
        chosen = [name for name in ("version", "tag", "timestamp") if name in given]
        if len(chosen) > 1:
            raise InvalidInputError(f"options {chosen[0]!r} and {chosen[1]!r} exclude each other")
        metadata = given.get("metadata")
        return cls(
            location=_location(given),
            version=given.get("version"),
            tag=given.get("tag"),
            timestamp=given.get("timestamp"),
            columns=_names(given.get("columns")),
            filter=given.get("filter"),
            row_ids=_flag("rowIds", given.get("rowids")),
            push_filters=_flag("pushFilters", given.get("pushfilters")),
            metadata=None if metadata is None else MetadataTable.parse(metadata),
            rows_per_partition=_count("rowsPerPartition", given.get("rowsperpartition")),
            mode=given.get("mode"),
            primary_key=_names(given.get("primarykey")) or (),
            properties=_prefixed(given, "property."),
            vectors=_prefixed(given, "vector."),
            stream_id=given.get("streamid"),
            from_version=given.get("fromversion"),
            changes=given.get("changes"),
            max_versions=_count("maxVersionsPerTrigger", given.get("maxversionspertrigger")),
            max_rows=_count("maxRowsPerTrigger", given.get("maxrowspertrigger")),
        )

    def open(self) -> Table:
        """The table at the version asked for.

        Raises:
            NotFoundError: no such table, version, tag or branch.
            InvalidInputError: a version or time that isn't one.
        """
        table = self.location.open()
        if self.version is not None:
            return table.at(_version(self.version))
        if self.tag is not None:
            return table.at(self.tag)
        return table if self.timestamp is None else table.at(_time(self.timestamp))


def located(options: Mapping[str, str]) -> bool:
    """Whether the options say where a table lies."""
    return any(key.lower() in ("path", "uri", "paths") for key in options)


def _check_names(given: Mapping[str, str]) -> None:
    for key in given:
        if key in _KNOWN or key in _SPARKS_OWN or key.startswith(_PREFIXES) or key == "paths":
            continue
        hint = did_you_mean(key, [*_KNOWN, *_PREFIXES])
        for lower, name in _KNOWN.items():
            hint = hint.replace(f"'{lower}'", f"'{name}'")
        raise InvalidInputError(
            f"there is no option {key!r}{hint}; there are {', '.join(_NAMES)}, and storage.…, property.…, vector.…"
        )


def _location(given: Mapping[str, str]) -> Location:
    if "paths" in given:
        raise InvalidInputError("a read takes one table: load several and unite them with union()")
    where = given.get("uri", given.get("path"))
    if where is None:
        raise InvalidInputError(
            'say where the table lies: .load("lake/namespace/table"), or .option("path", "lake").option("table", '
            '"namespace.table"); in SQL OPTIONS (path "…")'
        )
    # Spark makes `file:/folder` of the path of a CREATE TABLE.
    if where.startswith("file:/") and not where.startswith("file://"):
        where = "file://" + where.removeprefix("file:")
    if where.startswith("memory:"):
        raise UnsupportedError(
            f"{where} is in the memory of one process, and Spark's workers are others: use a folder or an object store"
        )
    return Location(where, given.get("table"), _prefixed(given, "storage."), given.get("branch"))


def _prefixed(given: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}


def _names(text: str | None) -> tuple[str, ...] | None:
    """Names from `a, b`, or from a JSON list where names hold commas."""
    if text is None:
        return None
    if not text.lstrip().startswith("["):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        names = json.loads(text)
    except ValueError as e:
        raise InvalidInputError(
            f"columns are names with commas between, or a JSON list, not {text!r}: {e}"
        ) from e
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(f"columns are a JSON list of names, not {text!r}")
    return tuple(names)


def _flag(name: str, text: str | None) -> bool:
    if text is None or text.lower() in ("true", "false"):
        return text is not None and text.lower() == "true"
    raise InvalidInputError(f"option {name!r} is true or false, not {text!r}")


def _count(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise InvalidInputError(f"option {name!r} is a whole number of at least 1, not {text!r}")
    return int(text)


def _version(text: str) -> int:
    if not text.strip().isdecimal():
        raise InvalidInputError(
            f"option 'version' is a number, not {text!r}; tags are named by the option 'tag'"
        )
    return int(text)


def _time(text: str) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError as e:
        raise InvalidInputError(
            f"option 'timestamp' is a time such as 2026-01-31T12:00:00Z, not {text!r}"
        ) from e
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
