"""A manifest: fragments as a columnar Arrow table, so that planning over a million of them is a vectorised filter.

One row per fragment; the layouts of their files stand once in the schema's metadata; the bounds of field 7 are the
columns `min.7`, `max.7`, `nulls.7` and `nans.7` (format specification, "Manifest").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import CorruptDataError, UnsupportedError
from vectorlake.metadata import codec
from vectorlake.metadata.deletion import checksum_of
from vectorlake.metadata.fragment import (
    BallSegment,
    DataFile,
    DeletionVector,
    FieldBounds,
    Fragment,
    KeySegment,
    Layout,
)
from vectorlake.metadata.literals import literal_to_json
from vectorlake.metadata.snapshot import FORMAT_VERSION, ManifestRef

_META: Final = b"vectorlake:manifest"
_FILE: Final = pa.struct(
    [
        pa.field("path", pa.string(), False),
        pa.field("format", pa.string(), False),
        pa.field("layout", pa.int32(), False),
        pa.field("row_start", pa.int64(), False),
        pa.field("row_stop", pa.int64(), False),
        pa.field("size", pa.int64(), False),
        pa.field("checksum", pa.string()),
        pa.field("e_tag", pa.string()),
        pa.field("sequence", pa.int64(), False),
    ]
)
_DELETES: Final = pa.struct(
    [
        pa.field("path", pa.string(), False),
        pa.field("offset", pa.int64(), False),
        pa.field("length", pa.int64(), False),
        pa.field("cardinality", pa.int64(), False),
        pa.field("checksum", pa.string(), False),
    ]
)
_CORE: Final = pa.schema(
    [
        pa.field("fragment_id", pa.int64(), False),
        pa.field("row_count", pa.int64(), False),
        pa.field("first_row_id", pa.int64()),
        pa.field("files", pa.list_(pa.field("item", _FILE, False)), False),
        pa.field("deletes", _DELETES),
        pa.field("constants", pa.string()),
    ]
)
_KEYS: Final = pa.field(
    "keys",
    pa.struct(
        [
            pa.field("path", pa.string(), False),
            pa.field("size", pa.int64(), False),
            pa.field("checksum", pa.string(), False),
        ]
    ),
)
"""There only if a fragment has a key segment."""
_BALLS: Final = pa.field(
    "balls",
    pa.list_(
        pa.struct(
            [
                pa.field("field_id", pa.int64(), False),
                pa.field("version", pa.int32(), False),
                pa.field("source", pa.string(), False),
                pa.field("order", pa.list_(pa.int64()), False),
                pa.field("path", pa.string(), False),
                pa.field("size", pa.int64(), False),
                pa.field("checksum", pa.string(), False),
            ]
        )
    ),
)
"""There only if a fragment has balls."""
_KEPT: Final = 64
"""Fragments that are kept as values once they were asked for: to make a few takes longer than to find them."""
_BOUND_KINDS: Final = ("min", "max", "nulls", "nans")


class Manifest:
    """An immutable set of fragments, ordered by fragment id."""

    def __init__(self, table: pa.Table, layouts: tuple[Layout, ...], features: tuple[str, ...] = ()) -> None:
        self.table = table
        self.layouts = layouts
        self.features = features
        self._known: list[Fragment] | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def of(cls, fragments: Sequence[Fragment]) -> Manifest:
        """A manifest of these fragments, whose ids have been given."""
        fragments = sorted(fragments, key=lambda fragment: fragment.id)
        layouts: dict[bytes, int] = {}
        kept: list[Layout] = []
        by_identity: dict[int, int] = {}

        def layout_index(layout: Layout) -> int:
            known = by_identity.get(id(layout))
            if known is None:
                key = codec.encode(layout)
                known = layouts.setdefault(key, len(layouts))
                if known == len(kept):
                    kept.append(layout)
                by_identity[id(layout)] = known
            return known

        columns: dict[str, Any] = {
            "fragment_id": [fragment.id for fragment in fragments],
            "row_count": [fragment.row_count for fragment in fragments],
            "first_row_id": [fragment.first_row_id for fragment in fragments],
            "files": [[_file_row(file, layout_index(file.layout)) for file in f.files] for f in fragments],
            "deletes": [None if f.deletes is None else msgspec.structs.asdict(f.deletes) for f in fragments],
            "constants": [
                json.dumps({str(k): v for k, v in f.constants.items()}) if f.constants else None
                for f in fragments
            ],
        }
        arrays = [pa.array(columns[field.name], type=field.type) for field in _CORE]
        fields = list(_CORE)
        if any(fragment.keys is not None for fragment in fragments):
            rows = [None if f.keys is None else msgspec.structs.asdict(f.keys) for f in fragments]
            fields.append(_KEYS)
            arrays.append(pa.array(rows, type=_KEYS.type))
        if any(fragment.balls for fragment in fragments):
            held = [[msgspec.structs.asdict(one) for one in f.balls] or None for f in fragments]
            fields.append(_BALLS)
            arrays.append(pa.array(held, type=_BALLS.type))
        for field, array in _bounds_columns(fragments):
            fields.append(field)
            arrays.append(array)
        return cls(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), tuple(kept))

    def fragments(self, indices: np.ndarray | None = None) -> list[Fragment]:
        """All fragments, or those at some row indices, as values."""
        if len(self) > _KEPT:
            return self._decoded(self.table if indices is None else self.table.take(pa.array(indices)))
        if self._known is None:
            self._known = self._decoded(self.table)
        return self._known.copy() if indices is None else [self._known[index] for index in indices]

    def _decoded(self, table: pa.Table) -> list[Fragment]:
        bounds = [
            (
                int(field_id),
                {
                    kind: table[name].to_pylist() if kind in ("nulls", "nans") else table[name]
                    for kind, name in kinds
                },
            )
            for field_id, kinds in self._bounds_names().items()
        ]
        optional = [name for name in (_KEYS.name, _BALLS.name) if name in table.column_names]
        named = [*_CORE.names, *optional]
        rows = table.select(named).to_pylist()
        members = DataFile.__struct_fields__  # a newer release may have added others
        fragments: list[Fragment] = []
        for index, row in enumerate(rows):
            known: dict[int, FieldBounds] = {}
            for field_id, columns in bounds:
                low, high = (columns[kind][index] if kind in columns else None for kind in ("min", "max"))
                nulls, nans = (
                    columns[kind][index] if kind in columns else None for kind in ("nulls", "nans")
                )
                low = low if low is not None and low.is_valid else None
                high = high if high is not None and high.is_valid else None
                if low is not None or high is not None or nulls is not None or nans is not None:
                    known[field_id] = FieldBounds(low, high, nulls, nans)
            fragments.append(
                Fragment(
                    row_count=row["row_count"],
                    files=tuple(
                        DataFile(
                            **{
                                **{name: file[name] for name in members},
                                "layout": self.layouts[file["layout"]],
                            }
                        )
                        for file in row["files"]
                    ),
                    id=row["fragment_id"],
                    first_row_id=row["first_row_id"],
                    deletes=None if row["deletes"] is None else DeletionVector(**row["deletes"]),
                    constants={int(k): v for k, v in json.loads(row["constants"]).items()}
                    if row["constants"]
                    else {},
                    bounds=known,
                    keys=KeySegment(**row["keys"]) if row.get("keys") else None,
                    balls=tuple(map(_ball_segment, row.get("balls") or ())),
                )
            )
        return fragments

    def _bounds_names(self) -> dict[str, list[tuple[str, str]]]:
        """Field id → (kind, column name) of the bounds that are there."""
        found: dict[str, list[tuple[str, str]]] = {}
        for name in self.table.column_names:
            kind, _, field_id = name.partition(".")
            if kind in _BOUND_KINDS and field_id.isdigit():
                found.setdefault(field_id, []).append((kind, name))
        return found

    @property
    def has_balls(self) -> bool:
        """Whether any fragment may have bounding balls."""
        return _BALLS.name in self.table.column_names

    @property
    def fragment_ids(self) -> np.ndarray:
        return np.asarray(self.table["fragment_id"].to_numpy())

    @property
    def row_counts(self) -> np.ndarray:
        return np.asarray(self.table["row_count"].to_numpy())

    def bound(self, kind: str, field_id: int) -> pa.ChunkedArray | None:
        """The column of one kind (`min`, `max`, `nulls`, `nans`) of bounds of one field."""
        name = f"{kind}.{field_id}"
        return self.table[name] if name in self.table.column_names else None

    def replace(self, *, removed: Iterable[int] = (), updated: Sequence[Fragment] = ()) -> Manifest:
        """This manifest without some fragments and with others in a new form; columns it does not know are kept."""
        gone = {*removed, *(fragment.id for fragment in updated)}
        keep = pc.invert(pc.is_in(self.table["fragment_id"], pa.array(sorted(gone), pa.int64())))
        rest = Manifest(self.table.filter(keep), self.layouts, self.features)
        return concat([rest, Manifest.of(updated)]) if updated else rest

    def encode(self) -> bytes:
        """The manifest as an Arrow IPC file with zstd-compressed buffers."""
        meta = {
            "format_version": FORMAT_VERSION,
            "required_features": list(self.features),
            "layouts": [codec.to_builtins(layout) for layout in self.layouts],
        }
        table = self.table.replace_schema_metadata({_META: json.dumps(meta).encode()}).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(
            sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
        ) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    def ref(self, path: str, data: bytes, types: Mapping[int, pa.DataType]) -> ManifestRef:
        """How a snapshot refers to this manifest, written as `data` at `path`.

        `types` are those of the snapshot's fields by id: its literals are read by them, whatever type bounds have here.
        """
        ids = self.fragment_ids
        deletes = self.table["deletes"].combine_chunks()
        deleted = pc.sum(pc.struct_field(deletes, "cardinality")).as_py() if len(self) else 0
        return ManifestRef(
            path=path,
            size=len(data),
            checksum=checksum_of(data),
            fragments=len(self),
            rows=int(self.row_counts.sum()) if len(self) else 0,
            deleted=deleted or 0,
            min_fragment_id=int(ids[0]) if len(self) else 0,
            max_fragment_id=int(ids[-1]) if len(self) else 0,
            bounds=self._summary(types),
        )

    def _summary(self, types: Mapping[int, pa.DataType], most: int = 64) -> dict[str, tuple[Any, ...]]:
        """Least and greatest of each field over all fragments, for fields whose bounds every fragment knows."""
        bounds: dict[str, tuple[Any, ...]] = {}
        for field_id in list(self._bounds_names())[:most]:
            low, high = self.bound("min", int(field_id)), self.bound("max", int(field_id))
            if low is None or high is None or not len(self) or low.null_count or high.null_count:
                continue
            if (
                pa.types.is_binary(low.type)
                or pa.types.is_large_binary(low.type)
                or pa.types.is_decimal(low.type)
            ):
                continue
            kind = types.get(int(field_id))
            if kind is None:
                continue
            try:
                low, high = low.cast(kind), high.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                continue
            # pyarrow has no least and greatest of half floats and durations
            stand_in = (
                pa.float32()
                if pa.types.is_float16(kind)
                else pa.int64()
                if pa.types.is_duration(kind)
                else kind
            )
            least, greatest = pc.min(low.cast(stand_in)), pc.max(high.cast(stand_in))
            bounds[field_id] = (
                literal_to_json(least.cast(kind), kind),
                literal_to_json(greatest.cast(kind), kind),
            )
        return bounds


def decode_manifest(data: bytes | pa.Buffer, ref: ManifestRef, where: str) -> Manifest:
    """A manifest from its file.

    Raises:
        CorruptDataError: length or checksum differ from what the snapshot recorded, or it is not a manifest.
        UnsupportedError: it requires a feature that this release does not know.
    """
    if len(data) != ref.size or checksum_of(data) != ref.checksum:
        raise CorruptDataError(
            f"{where} is damaged: {len(data)} bytes with checksum {checksum_of(data)}, the snapshot recorded "
            f"{ref.size} bytes with {ref.checksum}; restore the file or open an earlier version"
        )
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        meta = json.loads(table.schema.metadata[_META])
        layouts = tuple(codec.from_builtins(Layout, layout) for layout in meta["layouts"])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as e:
        raise CorruptDataError(f"{where} is not a manifest: {e}") from e
    if meta.get("format_version", 1) > FORMAT_VERSION:
        raise UnsupportedError(f"{where} has format version {meta['format_version']}: upgrade vectorlake")
    if features := meta.get("required_features"):
        raise UnsupportedError(
            f"{where} requires {', '.join(features)}, unknown to this release: upgrade vectorlake"
        )
    return Manifest(table.replace_schema_metadata(None), layouts)


def concat(manifests: Sequence[Manifest]) -> Manifest:
    """Several manifests of disjoint fragments as one, their layouts kept once."""
    layouts: dict[bytes, int] = {}
    kept: list[Layout] = []
    tables: list[pa.Table] = []
    for manifest in manifests:
        mapping: list[int] = []
        for layout in manifest.layouts:
            key = codec.encode(layout)
            if key not in layouts:
                layouts[key] = len(kept)
                kept.append(layout)
            mapping.append(layouts[key])
        tables.append(_with_layouts(manifest.table, np.array(mapping, np.int32)))
    table = pa.concat_tables(_with_like_bounds(tables), promote_options="permissive").combine_chunks()
    return Manifest(table.sort_by("fragment_id"), tuple(kept))


def _with_like_bounds(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables with each bounds column of one type: columns from before a widening are cast to the wider type."""
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            if field.name.partition(".")[0] in ("min", "max"):
                types.setdefault(field.name, set()).add(field.type)
    targets = {name: _widest(kinds) for name, kinds in types.items() if len(kinds) > 1}
    return [
        pa.table(
            [c.cast(targets.get(n, c.type)) for n, c in zip(t.column_names, t.columns, strict=True)],
            names=t.column_names,
        )
        if targets
        else t
        for t in tables
    ]


def _with_layouts(table: pa.Table, mapping: np.ndarray) -> pa.Table:
    """The table with each file's layout index looked up in `mapping`."""
    if np.array_equal(mapping, np.arange(len(mapping))) or not table.num_rows:
        return table
    files = table["files"].combine_chunks()
    flat = files.flatten()
    index = _FILE.get_field_index("layout")
    children = [flat.field(i) for i in range(flat.type.num_fields)]
    children[index] = pa.array(mapping[children[index].to_numpy(zero_copy_only=False)], pa.int32())
    offsets = pa.array(files.offsets.to_numpy() - files.offsets[0].as_py(), pa.int32())
    relabelled = pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays(children, fields=list(flat.type.fields)), type=files.type
    )
    position = table.column_names.index("files")
    return table.set_column(position, table.schema.field("files"), relabelled)


def _ball_segment(row: dict[str, Any]) -> BallSegment:
    members = {
        name: row[name] for name in BallSegment.__struct_fields__
    }  # a newer release may have added others
    return BallSegment(**{**members, "order": tuple(row["order"])})


def _file_row(file: DataFile, layout: int) -> dict[str, Any]:
    row = {name: getattr(file, name) for name in file.__struct_fields__}
    row["layout"] = layout
    return row


def _bounds_columns(fragments: Sequence[Fragment]) -> list[tuple[pa.Field, pa.Array]]:
    """The bounds columns for the fields of which any fragment knows something."""
    ids = sorted({field_id for fragment in fragments for field_id in fragment.bounds})
    columns: list[tuple[pa.Field, pa.Array]] = []
    for field_id in ids:
        known = [fragment.bounds.get(field_id) or FieldBounds() for fragment in fragments]
        for kind, values in (("min", [b.min for b in known]), ("max", [b.max for b in known])):
            types = {value.type for value in values if value is not None}
            if types:
                target = _widest(types)
                plain = [None if value is None else value.cast(target) for value in values]
                columns.append((pa.field(f"{kind}.{field_id}", target), pa.array(plain, type=target)))
        for kind, counts in (
            ("nulls", [b.null_count for b in known]),
            ("nans", [b.nan_count for b in known]),
        ):
            if any(count is not None for count in counts):
                columns.append((pa.field(f"{kind}.{field_id}", pa.int64()), pa.array(counts, pa.int64())))
    return columns


def _widest(types: Iterable[pa.DataType]) -> pa.DataType:
    """The type to which all of a field's bounds can be cast: bounds of files from before a widening are narrower."""
    types = set(types)
    if any(pa.types.is_timestamp(kind) for kind in types):
        types = {
            kind for kind in types if not pa.types.is_date(kind)
        }  # which Arrow does not count as a widening
    schemas = [pa.schema([("x", kind)]) for kind in types]
    return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
