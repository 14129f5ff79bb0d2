"""A table's metadata as Arrow tables: snapshots, fragments and files as columns. Pure, and without a Python object for each
fragment: a manifest's columns are taken over as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.metadata.manifest import Manifest
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.scan import COMPUTED
from vectorlake.schema import (
    LAST_UPDATED_VERSION,
    ROW_ID,
    ROW_ID_FIELD_ID,
    VERSION_FIELD_ID,
    Schema,
    type_to_arrow,
)

_UTC: Final = pa.timestamp("ms", tz="UTC")
_TEXTS: Final = pa.map_(pa.string(), pa.string())
_BOUNDS: Final = pa.struct(
    [("min", pa.string()), ("max", pa.string()), ("nulls", pa.int64()), ("nans", pa.int64())]
)


def _field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable)


SNAPSHOTS: Final = pa.schema(
    [
        _field("version", pa.int64()),
        _field("parent", pa.int64(), nullable=True),
        _field("timestamp", _UTC),
        _field("operation", pa.string()),
        _field("application", pa.string(), nullable=True),
        _field("principal", pa.string(), nullable=True),
        _field("added_rows", pa.int64(), nullable=True),
        _field("deleted_rows", pa.int64(), nullable=True),
        _field("updated_rows", pa.int64(), nullable=True),
        _field("rows", pa.int64()),
        _field("fragments", pa.int64()),
        _field("commit_id", pa.string()),
        _field("summary", _TEXTS),
    ]
)
"""`rows` and `fragments` are those of the version, the counts before them what its commit says of itself."""

FRAGMENTS: Final = pa.schema(
    [
        _field("fragment_id", pa.int64()),
        _field("rows", pa.int64()),
        _field("deleted_rows", pa.int64()),
        _field("live_rows", pa.int64()),
        _field("first_row_id", pa.int64(), nullable=True),
        _field("files", pa.int64()),
        _field("bytes", pa.int64()),
        _field("constants", _TEXTS),
        _field("bounds", pa.map_(pa.string(), _BOUNDS)),
    ]
)
"""`rows` are physical, deleted ones included; `constants` are JSON by column, `bounds` text by column."""

FILES: Final = pa.schema(
    [
        _field("fragment_id", pa.int64(), nullable=True),
        _field("content", pa.string()),
        _field("path", pa.string()),
        _field("format", pa.string(), nullable=True),
        _field("columns", pa.list_(pa.string())),
        _field("row_start", pa.int64(), nullable=True),
        _field("rows", pa.int64()),
        _field("size", pa.int64()),
        _field("checksum", pa.string(), nullable=True),
        _field("e_tag", pa.string(), nullable=True),
        _field("sequence", pa.int64(), nullable=True),
        _field("foreign", pa.bool_()),
    ]
)
"""`content` is `data`, `deletes` (a range of a file: `size` is the range's), `keys`, or of no fragment `index`."""

REFS: Final = pa.schema(
    [
        _field("name", pa.string()),
        _field("kind", pa.string()),
        _field("version", pa.int64()),
        _field("fork_version", pa.int64(), nullable=True),
        _field("created", _UTC, nullable=True),
    ]
)
"""`kind` is `main`, `branch` or `tag`; `version` is a line's newest, `fork_version` that at which a branch begins."""

Column: TypeAlias = Callable[[Manifest, Schema], pa.Array]


def snapshot_table(snapshots: Sequence[Snapshot]) -> pa.Table:
    """Snapshots as rows of `SNAPSHOTS`, in their order."""
    counts = {
        name: [_count(snapshot.summary.get(name)) for snapshot in snapshots]
        for name in ("added_rows", "deleted_rows", "updated_rows")
    }
    columns: dict[str, Any] = {
        "version": [snapshot.version for snapshot in snapshots],
        "parent": [snapshot.parent for snapshot in snapshots],
        "timestamp": [snapshot.timestamp_ms for snapshot in snapshots],
        "operation": [snapshot.operation for snapshot in snapshots],
        "application": [_text(snapshot.summary.get("application")) for snapshot in snapshots],
        "principal": [_text(snapshot.summary.get("principal")) for snapshot in snapshots],
        **counts,
        "rows": [snapshot.num_rows for snapshot in snapshots],
        "fragments": [snapshot.num_fragments for snapshot in snapshots],
        "commit_id": [snapshot.commit_id for snapshot in snapshots],
        "summary": [[(key, _text(value)) for key, value in s.summary.items()] for s in snapshots],
    }
    return pa.Table.from_arrays(
        [pa.array(columns[field.name], field.type) for field in SNAPSHOTS], schema=SNAPSHOTS
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    """A summary's value as text: strings as they are, the others as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def fragment_batch(manifest: Manifest, schema: Schema, names: Sequence[str]) -> pa.RecordBatch:
    """A manifest's fragments as rows of some columns of `FRAGMENTS`."""
    arrays = [_FRAGMENT_COLUMNS[name](manifest, schema) for name in names]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([FRAGMENTS.field(name) for name in names]))


def _plain(manifest: Manifest, name: str) -> pa.Array:
    column = manifest.table[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _deleted(manifest: Manifest) -> pa.Array:
    return pc.struct_field(_plain(manifest, "deletes"), "cardinality").fill_null(0)


def _file_counts(manifest: Manifest, _: Schema) -> pa.Array:
    return pc.list_value_length(_plain(manifest, "files")).cast(pa.int64())


def _file_bytes(manifest: Manifest, _: Schema) -> pa.Array:
    files = _plain(manifest, "files")
    owners = pc.list_parent_indices(files).to_numpy()
    sizes = files.flatten().field("size").to_numpy()
    total = np.zeros(len(files), np.int64)
    np.add.at(total, owners, sizes)
    return pa.array(total)


def _constants(manifest: Manifest, schema: Schema) -> pa.Array:
    coded = _plain(manifest, "constants").dictionary_encode()
    maps = [
        [(_name(schema, key), json.dumps(value)) for key, value in json.loads(text).items()]
        for text in coded.dictionary.to_pylist()
    ]
    # Fragments of one partition share their constants: each text is parsed once.
    return pa.array([*maps, []], _TEXTS).take(coded.indices.fill_null(len(maps)))


def _bounds(manifest: Manifest, schema: Schema) -> pa.Array:
    count = len(manifest)
    ids = sorted({int(name.partition(".")[2]) for name in manifest.table.column_names if _is_bound(name)})
    if not ids or not count:
        return pa.array([[]] * count, FRAGMENTS.field("bounds").type)
    names = pa.array([_name(schema, field_id) for field_id in ids], pa.string())
    kinds = [_kind(schema, field_id) for field_id in ids]
    members = [
        pa.concat_arrays(
            [
                _texts(manifest.bound(member, field_id), kind, count) if member in ("min", "max")
                else _numbers(manifest.bound(member, field_id), count)
                for field_id, kind in zip(ids, kinds, strict=True)
            ]
        )
        for member in _BOUNDS.names
    ]  # fmt: skip
    # Each member holds all fragments of the first field, then of the second: turned into fields by fragment.
    known = np.zeros(len(ids) * count, bool)
    for member in members:
        known |= member.is_valid().to_numpy(zero_copy_only=False)
    turned = np.arange(len(ids) * count).reshape(len(ids), count).T.ravel()
    turned = turned[known[turned]]
    offsets = np.concatenate([[0], np.cumsum(known.reshape(len(ids), count).sum(axis=0))]).astype(np.int32)
    picked = pa.array(turned)
    values = pa.StructArray.from_arrays([member.take(picked) for member in members], fields=list(_BOUNDS))
    return pa.MapArray.from_arrays(pa.array(offsets), names.take(pa.array(turned // count)), values)


def _is_bound(name: str) -> bool:
    member, _, field_id = name.partition(".")
    return member in _BOUNDS.names and field_id.isdigit()


def _kind(schema: Schema, field_id: int) -> pa.DataType | None:
    field = schema.by_id(field_id)
    return None if field is None else type_to_arrow(field.type, storage=True)


def _name(schema: Schema, field_id: int | str) -> str:
    """What a field is called today; a dropped one by its number, which no other ever has."""
    reserved = {ROW_ID_FIELD_ID: COMPUTED[ROW_ID].name, VERSION_FIELD_ID: COMPUTED[LAST_UPDATED_VERSION].name}
    field = schema.by_id(int(field_id))
    return field.name if field is not None else reserved.get(int(field_id), f"#{field_id}")


def _numbers(column: pa.ChunkedArray | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.int64()) if column is None else column.combine_chunks().cast(pa.int64())


def _texts(column: pa.ChunkedArray | None, kind: pa.DataType | None, count: int) -> pa.Array:
    """Values as text, in the column's type of today: binary ones in hex, the others as Arrow writes them."""
    if column is None:
        return pa.nulls(count, pa.string())
    values = column.combine_chunks()
    if kind is not None and kind != values.type:
        # Bounds from before a widening that Arrow can't cast keep their own type.
        with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = values.cast(kind)
    t = pa.types
    if t.is_binary(values.type) or t.is_large_binary(values.type) or t.is_fixed_size_binary(values.type):
        return pa.array([None if v is None else v.hex() for v in values.to_pylist()], pa.string())
    if t.is_float16(values.type):
        values = values.cast(pa.float32())
    if t.is_duration(values.type):
        unit = values.type.unit
        return pc.binary_join_element_wise(values.cast(pa.int64()).cast(pa.string()), unit, " ")
    return values.cast(pa.string())


_FRAGMENT_COLUMNS: Final[Mapping[str, Column]] = {
    "fragment_id": lambda manifest, _: _plain(manifest, "fragment_id"),
    "rows": lambda manifest, _: _plain(manifest, "row_count"),
    "deleted_rows": lambda manifest, _: _deleted(manifest),
    "live_rows": lambda manifest, _: pc.subtract(_plain(manifest, "row_count"), _deleted(manifest)),
    "first_row_id": lambda manifest, _: _plain(manifest, "first_row_id"),
    "files": _file_counts,
    "bytes": _file_bytes,
    "constants": _constants,
    "bounds": _bounds,
}


def file_batch(manifest: Manifest, schema: Schema) -> pa.RecordBatch:
    """The files of a manifest's fragments as rows of `FILES`: each fragment's data, deletes and keys in turn."""
    parts = [_data_files(manifest, schema), _deletes(manifest), _keys(manifest)]
    table = pa.concat_tables([part for part in parts if part is not None]).combine_chunks()
    order = np.argsort(table["fragment_id"].to_numpy(), kind="stable")
    (batch,) = table.take(pa.array(order)).combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], FILES)
    ]
    return batch


def index_batch(snapshot: Snapshot) -> pa.RecordBatch:
    """The files of a snapshot's indexes as rows of `FILES`: of each its model, then its segments."""
    rows: list[dict[str, Any]] = []
    for index in snapshot.indexes:
        column = _name(snapshot.schema, index.field_id)
        parts = [(index.model, 0, None), *((s.file, s.rows, s.version) for s in index.segments)]
        rows += [
            {
                "content": "index",
                "path": file.path,
                "format": "arrow",
                "columns": [column],
                "rows": count,
                "size": file.size,
                "checksum": file.checksum,
                "sequence": version,
                "foreign": False,
            }
            for file, count, version in parts
        ]
    return pa.RecordBatch.from_pylist(rows, FILES)


def _data_files(manifest: Manifest, schema: Schema) -> pa.Table:
    lists = _plain(manifest, "files")
    files = lists.flatten()
    names = [[_name(schema, field.id) for field in layout.fields] for layout in manifest.layouts]
    path, start = files.field("path"), files.field("row_start")
    columns = {
        "fragment_id": _plain(manifest, "fragment_id").take(pc.list_parent_indices(lists)),
        "content": _repeated("data", len(files)),
        "path": path,
        "format": files.field("format"),
        "columns": pa.array(names, FILES.field("columns").type).take(files.field("layout")),
        "row_start": start,
        "rows": pc.subtract(files.field("row_stop"), start),
        "foreign": pc.match_substring(path, "://"),
    }
    return _filled(
        columns | {name: files.field(name) for name in ("size", "checksum", "e_tag", "sequence")}, len(files)
    )


def _deletes(manifest: Manifest) -> pa.Table:
    held = _plain(manifest, "deletes")
    there = held.is_valid()
    ranges = held.filter(there)
    columns = {
        "fragment_id": _plain(manifest, "fragment_id").filter(there),
        "content": _repeated("deletes", len(ranges)),
        "path": ranges.field("path"),
        "rows": ranges.field("cardinality"),
        "size": ranges.field("length"),
        "checksum": ranges.field("checksum"),
    }
    return _filled(columns, len(ranges))


def _keys(manifest: Manifest) -> pa.Table | None:
    if "keys" not in manifest.table.column_names:
        return None
    held = _plain(manifest, "keys")
    there = held.is_valid()
    segments = held.filter(there)
    columns = {
        "fragment_id": _plain(manifest, "fragment_id").filter(there),
        "content": _repeated("keys", len(segments)),
        "path": segments.field("path"),
        "rows": _plain(manifest, "row_count").filter(there),
        "size": segments.field("size"),
        "checksum": segments.field("checksum"),
    }
    return _filled(columns, len(segments))


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), count)


def _filled(columns: Mapping[str, pa.Array], count: int) -> pa.Table:
    """Columns of `FILES`, those that this content has no value for added."""
    empty: dict[str, Callable[[], pa.Array]] = {
        "columns": lambda: pa.array([[]], FILES.field("columns").type).take(
            pa.array(np.zeros(count, np.int64))
        ),
        "foreign": lambda: pa.array(np.zeros(count, bool)),
    }
    arrays = [
        columns[field.name]
        if field.name in columns
        else empty[field.name]()
        if field.name in empty
        else pa.nulls(count, field.type)
        for field in FILES
    ]
    return pa.Table.from_arrays(arrays, schema=FILES)
