"""A table at one version as a small value that other processes can open: what engines and jobs send to their workers."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vectorlake.store.open import open_store
from vectorlake.table.branches import not_staged
from vectorlake.table.context import Context, Integrity
from vectorlake.table.log import TableLog
from vectorlake.table.view import View

if TYPE_CHECKING:
    from vectorlake.table.table import Table

_OPEN = 64
"""Tables that a process keeps open: their manifests, files and searchers stay warm from one task to the next."""


@dataclass(frozen=True)
class TableRef:
    """Where a table lies, and which of its versions is meant. Hashable, picklable, and JSON through msgspec.

    Holds the storage options, credentials among them: send it to workers, but don't log or store it.

    Attributes:
        uri: the table's folder. A `memory://` table can be opened in the process that has it only.
        version: the pinned version.
        branch: the branch whose version that is; None for the main line.
        name: what messages call the table.
    """

    uri: str
    version: int
    branch: str | None = None
    name: str = ""
    storage_options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    integrity: str = Integrity.LENGTH
    audit: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def open(self) -> Table:
        """The table at this version, pinned; kept open for the next call in this process.

        Raises:
            NotFoundError: the table, branch or version is no longer there.
        """
        return _opened(self)

    def open_head(self) -> Table:
        """A handle of its own, at this version, that can be written to and moved by `refresh()`.

        Raises:
            NotFoundError: the table, branch or version is no longer there.
        """
        return _open_table(self, pinned=False)


def ref_of(view: View, name: str = "") -> TableRef:
    """What another process needs to open a view.

    Raises:
        UnsupportedError: the view is of a transaction, which no other process can see.
    """
    snapshot = not_staged(view.snapshot, "hand the table to another process")
    context, branch = view.files.context, view.log.branch
    return TableRef(
        uri=view.store.uri,
        version=snapshot.version,
        branch=None if branch is None else branch.name,
        name=name or view.store.uri.rpartition("/")[2],
        storage_options=tuple(sorted(context.storage_options.items())),
        integrity=context.integrity,
        audit=tuple(sorted(context.audit.items())),
    )


@functools.lru_cache(_OPEN)
def _opened(ref: TableRef) -> Table:
    return _open_table(ref, pinned=True)


def _open_table(ref: TableRef, *, pinned: bool) -> Table:
    from vectorlake.table.table import Table

    options = dict(ref.storage_options)
    context = Context(storage_options=options, integrity=Integrity(ref.integrity), audit=dict(ref.audit))
    log = TableLog(open_store(ref.uri, options), new_id=context.new_id)
    if ref.branch is not None:
        log = log.on(log.get_branch(ref.branch))
    return Table(ref.name, log, log.load(ref.version), context=context, pinned=pinned)


def reopen(ref: TableRef, pinned: bool) -> Table:
    """The table of a ref, as `Table.__reduce__` wrote it down."""
    return ref.open() if pinned else ref.open_head()
