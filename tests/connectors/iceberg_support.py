"""Iceberg tables for tests: through pyiceberg's catalog, and written file by file where pyiceberg has no writer for it."""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyiceberg.manifest as ice
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import to_bytes
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable
from pyiceberg.typedef import Record
from pyroaring import BitMap64

PATH_ID, POSITION_ID = 2_147_483_546, 2_147_483_545
ROW_ID, LAST_UPDATED = 2_147_483_540, 2_147_483_539


def new_catalog(folder: Path) -> SqlCatalog:
    """A real catalog with a namespace `ns`, its warehouse beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("test", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("ns")
    return catalog


def digest(folder: Path) -> str:
    """A hash of every file below a folder, names included."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows as sortable tuples of text, in a canonical order."""
    columns = [[repr(value) for value in _plain(column).to_pylist()] for column in table.columns]
    return sorted(zip(*columns, strict=True)) if columns else []


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column


def with_ids(schema: pa.Schema, ids: Mapping[str, int]) -> pa.Schema:
    """An Arrow schema whose top-level fields carry Parquet field ids."""
    return pa.schema(
        [
            one.with_metadata({b"PARQUET:field_id": str(ids[one.name]).encode()}) if one.name in ids else one
            for one in schema
        ]
    )


@dataclass
class _Manifest:
    path: str
    content: ice.ManifestContent
    sequence: int
    snapshot_id: int
    entries: list[tuple[ice.DataFile, int]]
    """Live files with their data sequence numbers."""
    first_row_id: int | None = None
    spec_id: int = 0


@dataclass
class HandMade:
    """An Iceberg table made of hand-written files: any format version, delete files, row lineage."""

    folder: Path
    schema: Schema
    version: int = 2
    spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC
    properties: dict[str, str] = field(default_factory=dict)
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    schemas: list[Schema] = field(default_factory=list)
    specs: list[PartitionSpec] = field(default_factory=list)
    manifests: list[_Manifest] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    current: int | None = None
    sequence: int = 0
    next_row_id: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        self.schemas = self.schemas or [self.schema]
        self.specs = self.specs or [self.spec]
        (self.folder / "metadata").mkdir(parents=True, exist_ok=True)
        (self.folder / "data").mkdir(parents=True, exist_ok=True)

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata" / f"v{self.number}.metadata.json"

    def scan(self) -> pa.Table:
        """What pyiceberg reads."""
        return StaticTable.from_metadata(str(self.metadata)).scan().to_arrow()

    # --- files ---

    def data(
        self,
        rows: pa.Table,
        *,
        partition: Sequence[Any] = (),
        stats: bool = True,
        uri: str = "file://",
        ids: bool = True,
    ) -> ice.DataFile:
        """A Parquet data file; with `ids` its columns carry the field ids of the schema (and of row lineage)."""
        path = self.folder / "data" / f"{uuid.uuid4()}.parquet"
        known = {one.name: one.field_id for one in self.schema.fields}
        known |= {"_row_id": ROW_ID, "_last_updated_sequence_number": LAST_UPDATED}
        table = rows.cast(with_ids(rows.schema, known)) if ids else rows
        pq.write_table(table, path)
        lower: dict[int, bytes] = {}
        upper: dict[int, bytes] = {}
        nulls = {known[name]: rows[name].null_count for name in rows.column_names if name in known}
        for one in self.schema.fields:
            if stats and one.field_type.is_primitive and one.name in rows.column_names:
                values = [
                    value for value in rows[one.name].to_pylist() if value is not None and value == value
                ]
                if values:
                    lower[one.field_id] = to_bytes(one.field_type, min(values))
                    upper[one.field_id] = to_bytes(one.field_type, max(values))
        return self._file(
            content=ice.DataFileContent.DATA,
            file_path=f"{uri}{path}",
            file_format=ice.FileFormat.PARQUET,
            partition=Record(*partition),
            record_count=rows.num_rows,
            file_size_in_bytes=path.stat().st_size,
            null_value_counts=nulls if stats else None,
            lower_bounds=lower or None,
            upper_bounds=upper or None,
        )

    def position_deletes(
        self, deleted: Mapping[str, Iterable[int]], *, partition: Sequence[Any] = ()
    ) -> ice.DataFile:
        """One position delete file over one or more data files."""
        pairs = sorted((path, position) for path, positions in deleted.items() for position in positions)
        schema = with_ids(
            pa.schema([pa.field("file_path", pa.string(), False), pa.field("pos", pa.int64(), False)]),
            {"file_path": PATH_ID, "pos": POSITION_ID},
        )
        path = self.folder / "data" / f"{uuid.uuid4()}-deletes.parquet"
        pq.write_table(pa.table([[p for p, _ in pairs], [n for _, n in pairs]], schema=schema), path)
        return self._file(
            content=ice.DataFileContent.POSITION_DELETES,
            file_path=f"file://{path}",
            file_format=ice.FileFormat.PARQUET,
            partition=Record(*partition),
            record_count=len(pairs),
            file_size_in_bytes=path.stat().st_size,
            lower_bounds={PATH_ID: pairs[0][0].encode()},
            upper_bounds={PATH_ID: pairs[-1][0].encode()},
        )

    def deletion_vectors(self, deleted: Mapping[str, Iterable[int]]) -> list[ice.DataFile]:
        """One Puffin file of deletion vectors, and its entries: one for each data file."""
        path = self.folder / "data" / f"{uuid.uuid4()}.puffin"
        body = bytearray(b"PFA1")
        blobs: list[dict[str, Any]] = []
        files: list[dict[str, Any]] = []
        for name, positions in deleted.items():
            bitmap = BitMap64(positions)
            payload = b"\xd1\xd3\x39\x64" + bitmap.serialize()
            block = len(payload).to_bytes(4, "big") + payload + zlib.crc32(payload).to_bytes(4, "big")
            properties = {"referenced-data-file": name, "cardinality": str(len(bitmap))}
            blobs.append(
                {"type": "deletion-vector-v1", "fields": [POSITION_ID], "snapshot-id": -1, "sequence-number": -1,
                 "offset": len(body), "length": len(block), "properties": properties}
            )  # fmt: skip
            files.append(
                {
                    "record_count": len(bitmap),
                    "referenced_data_file": name,
                    "content_offset": len(body),
                    "content_size_in_bytes": len(block),
                }
            )
            body += block
        footer = json.dumps({"blobs": blobs}).encode()
        body += b"PFA1" + footer + len(footer).to_bytes(4, "little") + b"\0\0\0\0PFA1"
        path.write_bytes(body)
        common = {
            "content": ice.DataFileContent.POSITION_DELETES,
            "file_path": f"file://{path}",
            "file_format": ice.FileFormat.PUFFIN,
            "partition": Record(),
            "file_size_in_bytes": len(body),
        }
        return [self._file(**common, **one) for one in files]

    def equality_deletes(self, rows: pa.Table) -> ice.DataFile:
        """An equality delete file over the columns of `rows`."""
        path = self.folder / "data" / f"{uuid.uuid4()}-equality.parquet"
        pq.write_table(rows, path)
        return self._file(
            content=ice.DataFileContent.EQUALITY_DELETES,
            file_path=f"file://{path}",
            file_format=ice.FileFormat.PARQUET,
            partition=Record(),
            record_count=rows.num_rows,
            file_size_in_bytes=path.stat().st_size,
            equality_ids=[self.schema.find_field(name).field_id for name in rows.column_names],
        )

    def _file(self, **values: Any) -> ice.DataFile:
        file = ice.DataFile.from_args(_table_format_version=3, **values)
        file.spec_id = self.spec.spec_id
        return file

    # --- versions ---

    def evolve(self, schema: Schema) -> None:
        """Make a schema current with the next commit."""
        self.schema = schema
        self.schemas.append(schema)

    def repartition(self, spec: PartitionSpec) -> None:
        """Make a partition spec current with the next commit."""
        self.spec = spec
        self.specs.append(spec)

    def commit(
        self,
        add: Sequence[ice.DataFile] = (),
        *,
        remove: Sequence[ice.DataFile] = (),
        deletes: Sequence[ice.DataFile] = (),
        remove_deletes: Sequence[ice.DataFile] = (),
        operation: str = "append",
        keep_sequence: int | None = None,
    ) -> Path:
        """A new snapshot and metadata file; manifests without removed files stay as they are.

        With `keep_sequence`, added data files have this data sequence number, as those of a compaction have.
        """
        self.sequence += 1
        snapshot_id = uuid.uuid4().int >> 66
        gone = {(one.file_path, one[18]) for one in (*remove, *remove_deletes)}
        kept: list[_Manifest] = []
        for manifest in self.manifests:
            live = [pair for pair in manifest.entries if (pair[0].file_path, pair[0][18]) not in gone]
            if len(live) == len(manifest.entries):
                kept.append(manifest)
            elif live:
                kept.append(
                    self._write_manifest(
                        live, manifest.content, snapshot_id, existing=True, spec_id=manifest.spec_id
                    )
                )
        first_row_id = self.next_row_id
        if add:
            added = [(one, keep_sequence or self.sequence) for one in add]
            kept.append(
                self._write_manifest(
                    added, ice.ManifestContent.DATA, snapshot_id, existing=False, spec_id=self.spec.spec_id
                )
            )
        if deletes:
            added = [(one, self.sequence) for one in deletes]
            kept.append(
                self._write_manifest(
                    added, ice.ManifestContent.DELETES, snapshot_id, existing=False, spec_id=self.spec.spec_id
                )
            )
        self.manifests = kept
        snapshot: dict[str, Any] = {
            "snapshot-id": snapshot_id,
            "sequence-number": self.sequence,
            "timestamp-ms": 1_700_000_000_000 + self.sequence,
            "manifest-list": self._write_list(snapshot_id),
            "summary": {"operation": operation},
            "schema-id": self.schema.schema_id,
        }
        if self.version >= 3:
            snapshot |= {"first-row-id": first_row_id, "added-rows": self.next_row_id - first_row_id}
        if self.current is not None:
            snapshot["parent-snapshot-id"] = self.current
        self.snapshots.append(snapshot)
        self.current = snapshot_id
        return self.write_metadata()

    def write_metadata(self) -> Path:
        """The next metadata file."""
        self.number += 1
        metadata = {
            "format-version": self.version,
            "table-uuid": self.uuid,
            "location": f"file://{self.folder}",
            "last-sequence-number": self.sequence,
            "last-updated-ms": 1_700_000_000_000 + self.number,
            "last-column-id": max(schema.highest_field_id for schema in self.schemas),
            "schemas": [json.loads(schema.model_dump_json()) for schema in self.schemas],
            "current-schema-id": self.schema.schema_id,
            "partition-specs": [json.loads(spec.model_dump_json()) for spec in self.specs],
            "default-spec-id": self.spec.spec_id,
            "last-partition-id": max(spec.last_assigned_field_id for spec in self.specs),
            "properties": self.properties,
            "snapshots": self.snapshots,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "default-sort-order-id": 0,
            "refs": {"main": {"snapshot-id": self.current, "type": "branch"}} if self.current else {},
        }
        if self.current:
            metadata["current-snapshot-id"] = self.current
        if self.version >= 3:
            metadata["next-row-id"] = self.next_row_id
        self.metadata.write_text(json.dumps(metadata))
        (self.folder / "metadata" / "version-hint.text").write_text(str(self.number))
        return self.metadata

    def _write_manifest(
        self,
        live: list[tuple[ice.DataFile, int]],
        content: ice.ManifestContent,
        snapshot_id: int,
        *,
        existing: bool,
        spec_id: int,
    ) -> _Manifest:
        path = f"file://{self.folder}/metadata/{uuid.uuid4()}.avro"
        spec = next(spec for spec in self.specs if spec.spec_id == spec_id)
        first_row_id: int | None = None
        if self.version >= 3 and content == ice.ManifestContent.DATA:
            if existing:
                first_row_id = self.next_row_id
            else:
                first_row_id = self.next_row_id
                at = first_row_id
                for file, _ in live:
                    file.assigned_row_id = at
                    at += file.record_count
                self.next_row_id = at
        data_type = ice.data_file_with_partition(spec.partition_type(self.schema), self.version)
        schema = ice.manifest_entry_schema_with_data_file(self.version, data_type)
        record_type = ice.data_file_with_partition(spec.partition_type(self.schema), 3)
        record = ice.manifest_entry_schema_with_data_file(3, record_type)
        with AvroOutputFile[ice.ManifestEntry](
            PyArrowFileIO().new_output(path),
            file_schema=schema,
            record_schema=record,
            schema_name="manifest_entry",
            metadata={
                "schema": self.schema.model_dump_json(),
                "partition-spec": json.dumps(json.loads(spec.model_dump_json())["fields"]),
                "partition-spec-id": str(spec_id),
                "format-version": str(self.version),
                "content": "data" if content == ice.ManifestContent.DATA else "deletes",
                "avro.codec": "deflate",
            },
        ) as writer:
            for file, sequence in live:
                if existing and content == ice.ManifestContent.DATA and self.version >= 3:
                    file[16] = file.assigned_row_id
                inherits = not existing and sequence == self.sequence
                writer.write_block(
                    [
                        ice.ManifestEntry.from_args(
                            _table_format_version=3,
                            status=ice.ManifestEntryStatus.EXISTING
                            if existing
                            else ice.ManifestEntryStatus.ADDED,
                            snapshot_id=snapshot_id,
                            sequence_number=None if inherits else sequence,
                            file_sequence_number=None if inherits else sequence,
                            data_file=file,
                        )
                    ]
                )
        return _Manifest(path, content, self.sequence, snapshot_id, live, first_row_id, spec_id)

    def _write_list(self, snapshot_id: int) -> str:
        path = f"file://{self.folder}/metadata/snap-{snapshot_id}.avro"
        with AvroOutputFile[ice.ManifestFile](
            PyArrowFileIO().new_output(path),
            record_schema=ice.MANIFEST_LIST_FILE_SCHEMAS[3],
            file_schema=ice.MANIFEST_LIST_FILE_SCHEMAS[self.version],
            schema_name="manifest_file",
            metadata={
                "snapshot-id": str(snapshot_id),
                "format-version": str(self.version),
                "avro.codec": "deflate",
            },
        ) as writer:
            writer.write_block(
                [
                    ice.ManifestFile.from_args(
                        _table_format_version=3,
                        manifest_path=one.path,
                        manifest_length=Path(one.path.removeprefix("file://")).stat().st_size,
                        partition_spec_id=one.spec_id,
                        content=one.content,
                        sequence_number=one.sequence,
                        min_sequence_number=min(sequence for _, sequence in one.entries),
                        added_snapshot_id=one.snapshot_id,
                        added_files_count=len(one.entries),
                        existing_files_count=0,
                        deleted_files_count=0,
                        added_rows_count=sum(file.record_count for file, _ in one.entries),
                        existing_rows_count=0,
                        deleted_rows_count=0,
                        first_row_id=one.first_row_id,
                    )
                    for one in self.manifests
                ]
            )
        return path
