"""A lake: tables in folders of one root on local disk or an object store, without a server or a catalog file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vectorlake.clock import Clock, system_clock
from vectorlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from vectorlake.ids import NewId, random_id
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import APPLICATION, PRINCIPAL
from vectorlake.plan.layout import check_properties
from vectorlake.schema import Schema, did_you_mean, listing
from vectorlake.store.open import open_store
from vectorlake.store.protocol import Store
from vectorlake.table.context import Context, Integrity
from vectorlake.table.create import create_table, register_table, with_key
from vectorlake.table.log import FOLDER, LATEST, TableLog, snapshot_path
from vectorlake.table.table import Table

DEFAULT_NAMESPACE: Final = "main"
"""Where a table name without a dot lies."""

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_ANY_SNAPSHOT: Final = re.compile(rf"(.+)/{FOLDER}/v\d{{20}}\.json")


class Lake:
    """Tables by name, `namespace.table`; see `connect`."""

    def __init__(
        self,
        store: Store,
        *,
        storage_options: Mapping[str, str] | None = None,
        clock: Clock = system_clock,
        new_id: NewId = random_id,
        integrity: str | Integrity = Integrity.LENGTH,
        application: str | None = None,
        principal: str | None = None,
    ) -> None:
        self.store = store
        options = dict(storage_options or {})
        try:
            checked = Integrity(integrity)
        except ValueError as e:
            raise InvalidInputError(f"integrity must be 'length' or 'checksum', not {integrity!r}") from e
        self._context = Context(options, clock, new_id, checked, _audit(application, principal))
        self._logs: dict[str, TableLog] = {}

    def __reduce__(self) -> tuple[Callable[..., Lake], tuple[Any, ...]]:
        context = self._context
        return _reopened, (self.uri, self.storage_options, context.integrity, dict(context.audit))

    def __repr__(self) -> str:
        return f"Lake({self.uri!r})"

    @property
    def uri(self) -> str:
        """The lake's root."""
        return self.store.uri

    @property
    def storage_options(self) -> Mapping[str, str]:
        """What the lake was opened with to reach its store; credentials may be among them."""
        return dict(self._context.storage_options)

    def create_table(
        self,
        name: str,
        data_or_schema: object,
        *,
        primary_key: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
    ) -> Table:
        """Create a table, empty from an Arrow schema or filled from data, in one atomic commit.

        Args:
            name: `namespace.table`, or just `table` for the namespace `main`.
            data_or_schema: a `pyarrow.Schema` (with `vectorlake.vector(…)` and its kin as types, if you like), or
                whatever `Table.append` takes.
            primary_key: names of the columns that identify a row: without nulls, and never the same twice.
            properties: settings such as `write.scalar-format` (docs/tables.md), and any of your own.

        Raises:
            AlreadyExistsError: there is a table of that name.
            InvalidInputError: a bad name, schema, property or value; a primary key of floats, vectors or nested values,
                or one that is null or twice in the data. Nothing is written.
            UnsupportedError: a column type that no data file can hold.
        """
        log = self._free(name)
        return create_table(
            qualified(name),
            log,
            data_or_schema,
            primary_key=primary_key,
            properties=properties,
            context=self._context,
        )

    def register_table(
        self,
        name: str,
        schema: Schema,
        fragments: Sequence[Fragment],
        *,
        next_field_id: int,
        operation: str = "import",
        primary_key: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> Table:
        """Create a table over files that exist already (for connectors): nothing but metadata is written.

        Args:
            schema: the columns, with the field ids that the files' layouts use.
            fragments: slices of rows, in order, without ids.
            next_field_id: greater than every field id in use.
            operation: what the first snapshot says it did, with `summary`.
            primary_key: names of the columns that identify a row. That none is null or twice there is for the caller to
                know: the rows are not read.

        Raises:
            AlreadyExistsError: there is a table of that name.
        """
        schema = with_key(schema, primary_key)
        return register_table(
            qualified(name),
            self._free(name),
            schema,
            fragments,
            next_field_id=next_field_id,
            operation=operation,
            primary_key=tuple(schema.field(column).id for column in primary_key),
            properties=check_properties(properties or {}),
            summary=summary,
            context=self._context,
        )

    def folder(self, name: str) -> Store:
        """The store rooted at a table's folder, whether there is a table or not yet (for connectors)."""
        return self.store.child(_folder(qualified(name)))

    def resolve(self, uri: str) -> tuple[Store, str]:
        """The store and path of a file anywhere, by its absolute URI, with the lake's storage options."""
        return self._context.resolve(uri)

    def table(self, name: str, *, branch: str | None = None) -> Table:
        """Open a table at its latest version, or at a branch's.

        Raises:
            NotFoundError: there is none of that name; names close ones.
        """
        log = self._log(name)
        try:
            snapshot = log.latest()
        except NotFoundError:
            known = self.tables()
            short = [table.removeprefix(f"{DEFAULT_NAMESPACE}.") for table in known]
            hint = did_you_mean(name, [*known, *short])
            raise NotFoundError(f"no table {name!r} in {self.uri}{hint}; there is {listing(known)}") from None
        table = Table(qualified(name), log, snapshot, context=self._context)
        return table if branch is None else table.checkout(branch)

    def exists(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return self._log(name).exists()

    def check_free(self, name: str) -> None:
        """Refuse a name that is taken, before work is done for a new table.

        Raises:
            AlreadyExistsError: there is a table of that name.
            InvalidInputError: a bad name.
        """
        self._free(name)

    def tables(self, namespace: str | None = None) -> list[str]:
        """The full names of all tables, or of those in one namespace."""
        prefix = "" if namespace is None else _folder(namespace)
        found = {
            match[1] for info in self.store.list(prefix) if (match := _ANY_SNAPSHOT.fullmatch(info.path))
        }
        return sorted(folder.replace("/", ".") for folder in found)

    def namespaces(self) -> list[str]:
        """The namespaces that hold a table."""
        return sorted({name.rpartition(".")[0] for name in self.tables()})

    def drop_table(self, name: str) -> None:
        """Remove a table with all its versions and files of its own; foreign files that it refers to are left alone.

        Branches go first, then snapshots, the newest last, so that a reader finds the table whole or not at all.

        Raises:
            NotFoundError: there is none of that name.
        """
        log = self.table(name)._log
        for branch in log.branches():
            log.delete_branch(branch)
        versions = log.versions()
        log.store.delete([LATEST])
        log.store.delete([snapshot_path(version) for version in versions[:-1]])
        log.store.delete([snapshot_path(versions[-1])])
        log.store.delete([info.path for info in log.store.list()])
        log.store.delete([info.path for info in log.store.leftovers()])

    def _free(self, name: str) -> TableLog:
        log = self._log(name)
        if log.exists():
            raise AlreadyExistsError(
                f"table {name!r} exists already in {self.uri}: open it with table(), or choose another name"
            )
        return log

    def _log(self, name: str) -> TableLog:
        # Kept, because a log remembers manifests: they never change, so opening a table again need not read them.
        folder = _folder(qualified(name))
        if folder not in self._logs:
            self._logs[folder] = TableLog(self.store.child(folder), new_id=self._context.new_id)
        return self._logs[folder]


def connect(
    uri: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, str] | None = None,
    integrity: str | Integrity = Integrity.LENGTH,
    application: str | None = None,
    principal: str | None = None,
) -> Lake:
    """Open a lake: a folder or an object store prefix that holds tables. Nothing is created before the first table.

    Args:
        uri: a local folder, `s3://bucket/prefix`, `gs://…`, `az://…`, or `memory://name` (this process only).
        storage_options: credentials, region, endpoint and the like, by the usual names (docs/stores.md); what is not
            given is taken from the environment.
        integrity: how data files are checked when they are opened: `"length"`, or `"checksum"`, which reads each file
            whole before it trusts it. Metadata is always checked by checksum.
        application: what commits, such as `"nightly-etl/2.1"`; by default this library and its version. Written, like
            `principal`, into the summary of each snapshot.
        principal: who commits, such as a user or service account; nothing is guessed.

    Raises:
        InvalidInputError: a URI or option that means nothing.
    """
    return Lake(
        open_store(uri, storage_options),
        storage_options=storage_options,
        integrity=integrity,
        application=application,
        principal=principal,
    )


def _reopened(uri: str, storage_options: Mapping[str, str], integrity: str, audit: Mapping[str, str]) -> Lake:
    """A lake in another process; its clock and ids are that process's own."""
    return connect(
        uri,
        storage_options=storage_options,
        integrity=integrity,
        application=audit.get(APPLICATION),
        principal=audit.get(PRINCIPAL),
    )


def open_table(
    uri: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, str] | None = None,
    integrity: str | Integrity = Integrity.LENGTH,
    application: str | None = None,
    principal: str | None = None,
) -> Table:
    """Open the table whose folder is at `uri`, without its lake; arguments as for `connect`.

    Raises:
        NotFoundError: there is no table there.
    """
    lake = connect(
        uri,
        storage_options=storage_options,
        integrity=integrity,
        application=application,
        principal=principal,
    )
    log = TableLog(lake.store, new_id=random_id)
    return Table(lake.uri.rpartition("/")[2], log, log.latest(), context=lake._context)


def _audit(application: str | None, principal: str | None) -> dict[str, str]:
    import vectorlake

    for name, value in ((APPLICATION, application), (PRINCIPAL, principal)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise InvalidInputError(f"{name} must be a text that says who commits, not {value!r}")
    known = {APPLICATION: application or f"vectorlake/{vectorlake.__version__}"}
    return known | ({PRINCIPAL: principal} if principal else {})


def qualified(name: str) -> str:
    """A table's full name: with the default namespace, if it names none.

    Raises:
        InvalidInputError: parts that can't be folder names.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if not parts or not all(_PART.fullmatch(part) for part in parts) or parts[-1] in ("metadata", "data"):
        raise InvalidInputError(
            f"{name!r} can't be a table's name: write namespace.table, of letters, digits, '_' and '-' "
            "(not 'metadata' or 'data')"
        )
    return name if len(parts) > 1 else f"{DEFAULT_NAMESPACE}.{name}"


def _folder(name: str) -> str:
    return name.replace(".", "/")
