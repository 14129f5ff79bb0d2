"""A table's metadata as Arrow tables: snapshots, files, fragments, tags and branches, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import pyarrow as pa

from vectorlake.errors import NotFoundError
from vectorlake.expr import Expr
from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.metadata_tables import (
    FILES,
    FRAGMENTS,
    REFS,
    SNAPSHOTS,
    file_batch,
    fragment_batch,
    index_batch,
    snapshot_table,
)
from vectorlake.plan.scan import manifest_may_match, surviving
from vectorlake.schema import did_you_mean, listing
from vectorlake.table.branches import list_branches
from vectorlake.table.log import TableLog
from vectorlake.table.view import View

_FRAGMENTS_AT_ONCE: Final = 65_536
"""Fragments of which the metadata is turned into rows at a time."""


class MetadataTable(StrEnum):
    """What can be asked of a table's metadata."""

    SNAPSHOTS = "snapshots"
    """Its versions up to this one, newest first: the audit log."""
    FILES = "files"
    """The files of this version."""
    FRAGMENTS = "fragments"
    """The fragments of this version."""
    REFS = "refs"
    """The main line, branches and tags."""

    @classmethod
    def parse(cls, name: str) -> MetadataTable:
        """The metadata table of a name.

        Raises:
            NotFoundError: there is none; names those that there are.
        """
        try:
            return cls(name)
        except ValueError:
            known = [kind.value for kind in cls]
            raise NotFoundError(
                f"no metadata table {name!r}{did_you_mean(str(name), known)}; there are {listing(known)}"
            ) from None

    @property
    def schema(self) -> pa.Schema:
        """The columns, the same for every table."""
        return _SCHEMAS[self]


_SCHEMAS: Final = {
    MetadataTable.SNAPSHOTS: SNAPSHOTS,
    MetadataTable.FILES: FILES,
    MetadataTable.FRAGMENTS: FRAGMENTS,
    MetadataTable.REFS: REFS,
}


def inspect(
    view: View, kind: MetadataTable, *, columns: Sequence[str] | None = None, predicate: Expr | None = None
) -> Iterator[pa.RecordBatch]:
    """One of a version's metadata tables, batch by batch, in bounded memory for files and fragments.

    Args:
        view: the version.
        kind: which table.
        columns: only these, in this order.
        predicate: of files and fragments, only those of fragments that may hold rows for which it is true.

    Raises:
        NotFoundError: an unknown column.
    """
    schema = view.snapshot.schema
    known = kind.schema.names
    names = known if columns is None else list(columns)
    for name in names:
        if name not in known:
            raise NotFoundError(
                f"{kind} have no column {name!r}{did_you_mean(name, known)}: {listing(known)}"
            )
    match kind:
        case MetadataTable.SNAPSHOTS:
            yield from snapshot_table(history(view)).select(names).to_batches()
        case MetadataTable.REFS:
            yield from _refs(view.log).select(names).to_batches()
        case MetadataTable.FRAGMENTS:
            for manifest in _manifests(view, predicate):
                yield fragment_batch(manifest, schema, names)
        case MetadataTable.FILES:
            for manifest in _manifests(view, predicate):
                yield file_batch(manifest, schema).select(names)
            if view.snapshot.indexes:
                yield index_batch(view.snapshot).select(names)


def inspected(view: View, kind: MetadataTable, *, predicate: Expr | None = None) -> pa.Table:
    """One of a version's metadata tables whole."""
    return pa.Table.from_batches(inspect(view, kind, predicate=predicate), schema=kind.schema)


def history(view: View) -> list[Snapshot]:
    """The snapshots up to a view's, newest first."""
    newest = view.snapshot.version
    return [snapshot for snapshot in reversed(view.log.history()) if snapshot.version <= newest]


def _manifests(view: View, predicate: Expr | None) -> Iterator[Manifest]:
    """The fragments that may match, as manifests of a size that a batch of rows can be made of."""
    snapshot = view.snapshot
    for ref in sorted(snapshot.manifests, key=lambda ref: ref.min_fragment_id):
        if not manifest_may_match(ref, predicate, snapshot.schema):
            continue
        manifest = view.log.manifest(ref)
        table = manifest.table
        if predicate is not None:
            table = table.take(pa.array(surviving(manifest, predicate, snapshot.schema)))
        for start in range(0, table.num_rows, _FRAGMENTS_AT_ONCE):
            part = table.slice(start, _FRAGMENTS_AT_ONCE).combine_chunks()
            yield Manifest(part, manifest.layouts, manifest.features)


def _refs(log: TableLog) -> pa.Table:
    main = ("main", "main", log.main.latest().version, None, None)
    branches = [
        (branch.name, "branch", branch.version, branch.fork_version, branch.timestamp_ms)
        for branch in list_branches(log)
    ]
    tags = [(tag.name, "tag", tag.version, None, tag.timestamp_ms) for tag in log.tags()]
    columns = zip(main, *branches, *tags, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, REFS, strict=True)], schema=REFS
    )
