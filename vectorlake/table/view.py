"""A pinned snapshot and what it takes to read it: fragments that survive pruning, deletion vectors, open files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.expr import Expr, bind
from vectorlake.metadata.deletion import decode_deletes
from vectorlake.metadata.fragment import DeletionVector, Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import touched
from vectorlake.plan.scan import COMPUTED, fields_by_name, manifest_may_match, surviving
from vectorlake.schema import Field, did_you_mean, listing, storage_array
from vectorlake.store.protocol import Store
from vectorlake.table.files import DataFiles
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.log import TableLog
from vectorlake.table.memo import Memo
from vectorlake.tracing import span

_CHUNK = 4096
"""Fragments that are turned from manifest rows into values at a time."""


@dataclass(frozen=True)
class View:
    """One snapshot of a table, open for reading. Immutable; whatever other writers do, it answers the same."""

    snapshot: Snapshot
    log: TableLog
    files: DataFiles
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)
    """What was worked out about this snapshot."""
    requests: Memo = field(default_factory=Memo, compare=False, repr=False)
    """Searches that were checked against it: apart, as to find one takes less time than some of the others take to make."""

    @property
    def store(self) -> Store:
        return self.log.store

    def load_deletes(self, vector: DeletionVector) -> BitMap64:
        """One deletion vector, checked."""
        where = f"{self.store.uri}/{vector.path}"
        try:
            block = self.store.get_range(vector.path, vector.offset, vector.length)
        except NotFoundError as e:
            raise CorruptDataError(
                f"{where} is missing, though a manifest names it; restore it or open another version"
            ) from e
        return decode_deletes(block, vector, where)

    def fragments(self, predicate: Expr | None = None) -> Iterator[Fragment]:
        """The fragments that may hold rows for which `predicate` is true, by id within each manifest."""
        for ref in sorted(self.snapshot.manifests, key=lambda ref: ref.min_fragment_id):
            if not manifest_may_match(ref, predicate, self.snapshot.schema):
                continue
            with span("plan", table=self.store.uri, fragments=ref.fragments) as told:
                manifest = self.log.manifest(ref)
                indices = surviving(manifest, predicate, self.snapshot.schema)
                told.set(planned=len(indices))
            for start in range(0, len(indices), _CHUNK):
                yield from manifest.fragments(indices[start : start + _CHUNK])

    def readers(self, predicate: Expr | None = None) -> Iterator[FragmentReader]:
        """Readers of those fragments."""
        for fragment in self.fragments(predicate):
            yield self.reader(fragment)

    def reader(self, fragment: Fragment) -> FragmentReader:
        return FragmentReader(fragment, files=self.files, load_deletes=self.load_deletes)

    def bind(self, predicate: str | Expr | object | None) -> Expr | None:
        """A filter bound to this snapshot's columns, `_row_id` and `_last_updated_version` included."""
        fields = [*self.snapshot.schema.fields, *COMPUTED.values()]
        return bind(predicate, pa.schema([known.to_storage() for known in fields]))

    def select(self, names: list[str] | None) -> list[Field]:
        """Columns by name, in the order asked for; all of the schema's without names.

        Raises:
            NotFoundError: an unknown column, with close names.
        """
        if names is None:
            return list(self.snapshot.schema.fields)
        known = fields_by_name(self.snapshot.schema)
        for name in names:
            if name not in known:
                columns = self.snapshot.schema.names
                raise NotFoundError(
                    f"no column {name!r}{did_you_mean(name, list(known))}; the columns are {listing(columns)}"
                )
        return [known[name] for name in names]

    def matches(
        self, reader: FragmentReader, predicate: Expr | None, start: int, stop: int
    ) -> tuple[np.ndarray | None, pa.RecordBatch | None]:
        """Live positions in `[start, stop)` where the predicate is true (None for all rows), and, where the predicate's
        columns had to be read for that, all rows of these columns."""
        live = reader.live(start, stop)
        if predicate is None:
            return live, None
        fields = fields_by_name(self.snapshot.schema)
        positions = reader.matching(predicate, fields, start, stop)
        batch = None
        if positions is None:
            batch = reader.read([fields[name] for name in sorted(predicate.columns())], start, stop)
            mask = np.asarray(predicate.mask(batch), dtype=bool)
            positions = np.flatnonzero(mask) + start
        if live is not None:
            positions = positions[np.isin(positions, live, assume_unique=True)]
        return positions, batch


def find_fragments(log: TableLog, head: Snapshot, fragment_ids: set[int]) -> dict[int, Fragment]:
    """Fragments of a snapshot by id; those it no longer has are left out."""
    found: dict[int, Fragment] = {}
    for ref in touched(head.manifests, sorted(fragment_ids)):
        manifest = log.manifest(ref)
        indices = np.flatnonzero(np.isin(manifest.fragment_ids, list(fragment_ids)))
        found.update({fragment.id: fragment for fragment in manifest.fragments(indices)})
    return found


def to_output(batch: pa.RecordBatch, fields: list[Field]) -> pa.RecordBatch:
    """A batch of storage types as what users see: extension types wrapped, metadata and nullability as declared."""
    schema = pa.schema([known.to_arrow() for known in fields])
    if not fields:
        return batch
    arrays = [wrapped(batch.column(index), field.type) for index, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def wrapped(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """A storage array as an array of a declared type that may be, or hold, an extension type."""
    if array.type == kind:
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, storage_array(array))
    if pa.types.is_struct(kind):
        children = [wrapped(array.field(i), kind.field(i).type) for i in range(kind.num_fields)]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(kind.fields), mask=mask)
    return array.cast(kind)
