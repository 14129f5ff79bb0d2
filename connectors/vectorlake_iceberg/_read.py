"""A source's metadata as values: where its newest metadata file is, its manifests, and the files they list."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyiceberg.manifest as ice
from pyiceberg.avro.file import AvroFile
from pyiceberg.exceptions import ValidationError
from pyiceberg.io import InputFile, InputStream
from pyiceberg.schema import Schema as IcebergSchema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import StaticTable
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot

from vectorlake.errors import CorruptDataError, InvalidInputError, NotFoundError, UnsupportedError
from vectorlake.extend import Store

SourceLike: TypeAlias = IcebergTable | str | os.PathLike[str]
"""A pyiceberg table, or the location of a metadata file or of a table's folder."""

Resolve: TypeAlias = Callable[[str], tuple[Store, str]]
"""An absolute URI as a store and a path in it."""

_READERS: Final = 16
_VERSION: Final = re.compile(r"v?(\d+)(?:-[^/]*)?\.(?:gz\.)?metadata\.json(?:\.gz)?")
_HINT: Final = "version-hint.text"


@dataclass(frozen=True)
class Source:
    """One version of an Iceberg table: its metadata file, parsed, and how to read the files that it names."""

    metadata: TableMetadata
    location: str
    """Of the metadata file."""
    read: Callable[[str], bytes]
    """All bytes of a metadata or delete file."""
    catalog: str | None = None
    identifier: str | None = None

    @property
    def uuid(self) -> str:
        return str(self.metadata.table_uuid)

    def snapshot(self, snapshot_id: int | None) -> IcebergSnapshot | None:
        """A snapshot by id, the current one without; None for a table that has none.

        Raises:
            NotFoundError: the table has no snapshot of that id (any more).
        """
        wanted = self.metadata.current_snapshot_id if snapshot_id is None else snapshot_id
        if wanted is None or wanted == -1:
            return None
        found = self.metadata.snapshot_by_id(wanted)
        if found is None:
            known = ", ".join(str(snapshot.snapshot_id) for snapshot in self.metadata.snapshots[-5:])
            raise NotFoundError(
                f"the Iceberg table {self.location} has no snapshot {wanted}; its newest are {known or 'none'}"
            )
        return found

    def schema(self, schema_id: int | None) -> IcebergSchema:
        """A schema by id, the current one without."""
        wanted = self.metadata.current_schema_id if schema_id is None else schema_id
        for schema in self.metadata.schemas:
            if schema.schema_id == wanted:
                return schema
        raise CorruptDataError(
            f"the Iceberg table {self.location} has no schema {wanted}, though it refers to it"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that a manifest lists, with what it inherits from the manifest."""

    file: ice.DataFile
    uri: str
    """Its path as an absolute URI."""
    sequence: int
    snapshot_id: int | None
    first_row_id: int | None
    """Iceberg's row id of the file's first row (v3)."""

    @property
    def key(self) -> tuple[str, int | None]:
        """What tells it from other entries: several deletion vectors may lie in one file."""
        return self.uri, self.file[18]

    @property
    def referenced(self) -> str | None:
        """The data file whose rows a deletion vector deletes, as an absolute URI."""
        return None if self.file[17] is None else absolute(self.file[17])

    @property
    def blob(self) -> tuple[int, int] | None:
        """Offset and length of a deletion vector in its file."""
        return None if self.file[18] is None else (self.file[18], self.file[19])


def absolute(path: str) -> str:
    """A path as Iceberg records it, as an absolute URI: `/a` and `file:/a` become `file:///a`."""
    if "://" in path:
        return path
    path = path.removeprefix("file:")
    return f"file://{path}" if path.startswith("/") else f"file:///{path}"


# --- opening -------------------------------------------------------------------------------------------------------


def open_source(source: SourceLike, resolve: Resolve) -> Source:
    """The table that a user handed over, as it is now.

    Raises:
        NotFoundError: no metadata file is there.
        UnsupportedError: its metadata needs a newer pyiceberg.
        InvalidInputError: something that is neither a pyiceberg table nor a location.
    """
    if isinstance(source, IcebergTable):
        return _opened(source)
    if not isinstance(source, str | os.PathLike):
        raise InvalidInputError(
            f"an Iceberg source is a pyiceberg table or the location of a metadata.json, not {type(source).__name__}"
        )
    location = absolute(
        os.fspath(source) if "://" in os.fspath(source) else str(Path(source).expanduser().absolute())
    )
    if not location.removesuffix(".gz").endswith(".json"):
        location = newest_metadata(f"{location.rstrip('/')}/metadata", resolve)
    return load(location, resolve)


def refreshed(source: SourceLike, resolve: Resolve) -> Source:
    """As `open_source`, but a catalog is asked for the table's newest version."""
    if isinstance(source, IcebergTable) and not isinstance(source, StaticTable):
        return _opened(source.catalog.load_table(source.name()))
    return open_source(source, resolve)


def _opened(table: IcebergTable) -> Source:
    static = isinstance(table, StaticTable)
    return Source(
        table.metadata,
        absolute(table.metadata_location),
        lambda location: _bytes_of(table.io.new_input(location)),
        catalog=None if static else table.catalog.name,
        identifier=None if static else ".".join(table.name()),
    )


def _bytes_of(file: InputFile) -> bytes:
    try:
        with file.open() as stream:
            return bytes(stream.read())
    except FileNotFoundError as e:
        raise NotFoundError(f"no file at {file.location}") from e


def load(location: str, resolve: Resolve) -> Source:
    """The table version that one metadata file describes."""

    def read(path: str) -> bytes:
        store, inside = resolve(absolute(path))
        return store.get(inside)

    data = read(location)
    try:
        metadata = FromInputFile.table_metadata(_Bytes(location, data))
    except (ValidationError, NotImplementedError) as e:
        if b'"format-version"' not in data:
            raise CorruptDataError(f"{location} is no Iceberg metadata file: {e}") from e
        raise UnsupportedError(f"{location} is damaged, or needs a newer release of pyiceberg: {e}") from e
    except (ValueError, KeyError, OSError) as e:
        raise CorruptDataError(f"{location} is no Iceberg metadata file: {e}") from e
    return Source(metadata, location, read)


def newest_metadata(folder: str, resolve: Resolve) -> str:
    """The newest metadata file in a table's metadata folder (a URI): what its version hint names, or the highest number.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: two writers left a file of the highest number, and only the catalog knows which one counts.
    """
    store, inside = resolve(f"{folder}/{_HINT}")
    found: dict[int, list[str]] = {}
    for info in store.list(inside.rpartition("/")[0]):
        match = _VERSION.fullmatch(info.path.rpartition("/")[2])
        if match and info.path.rpartition("/")[0] == inside.rpartition("/")[0]:
            found.setdefault(int(match[1]), []).append(f"{folder}/{info.path.rpartition('/')[2]}")
    if not found:
        raise NotFoundError(
            f"no Iceberg metadata in {folder}: name a metadata.json, or a table's folder that holds metadata/"
        )
    newest = found[max(found)]
    if len(newest) > 1:
        raise InvalidInputError(
            f"{folder} holds {len(newest)} metadata files of the same number ({', '.join(sorted(newest))}): a writer "
            "lost a race; name the right one, or pass the table loaded from its catalog"
        )
    return newest[0]


class _Bytes(InputFile):
    """Bytes at hand, as pyiceberg's readers want them."""

    def __init__(self, location: str, data: bytes) -> None:
        super().__init__(location)
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def exists(self) -> bool:
        return True

    def open(self, seekable: bool = True) -> InputStream:
        return io.BytesIO(self._data)


# --- manifests -----------------------------------------------------------------------------------------------------


def manifests(source: Source, snapshot: IcebergSnapshot | None) -> list[ice.ManifestFile]:
    """The manifests of a snapshot.

    Raises:
        CorruptDataError: the manifest list is gone or damaged; names it.
    """
    if snapshot is None:
        return []
    if not snapshot.manifest_list:
        raise UnsupportedError(
            f"snapshot {snapshot.snapshot_id} of {source.location} has no manifest list, as the first writers of v1 left "
            "it: rewrite_manifests in the source, then import again"
        )
    with _avro(
        source,
        snapshot.manifest_list,
        ice.MANIFEST_LIST_FILE_SCHEMAS[3],
        {-1: ice.ManifestFile, 508: ice.PartitionFieldSummary},
        {517: ice.ManifestContent},
    ) as reader:
        return list(reader)


def entries(source: Source, of: Iterable[ice.ManifestFile]) -> list[Entry]:
    """The live entries of some manifests, read in parallel, in the order of the manifests."""
    with ThreadPoolExecutor(_READERS) as pool:
        return [
            entry for found in pool.map(lambda manifest: _entries(source, manifest), of) for entry in found
        ]


def _entries(source: Source, manifest: ice.ManifestFile) -> Sequence[Entry]:
    if manifest.key_metadata is not None:
        raise UnsupportedError(
            f"manifest {manifest.manifest_path} is encrypted, which this release can't read"
        )
    found: list[Entry] = []
    next_row_id: int | None = manifest[15]
    with _avro(
        source,
        manifest.manifest_path,
        ice.MANIFEST_ENTRY_SCHEMAS[3],
        {-1: ice.ManifestEntry, 2: ice.DataFile},
        {0: ice.ManifestEntryStatus, 101: ice.FileFormat, 134: ice.DataFileContent},
    ) as reader:
        for entry in reader:
            if entry.status == ice.ManifestEntryStatus.DELETED:
                continue
            file: ice.DataFile = entry.data_file
            file.spec_id = manifest.partition_spec_id
            first: int | None = file[16]
            if first is None and next_row_id is not None and file.content == ice.DataFileContent.DATA:
                first, next_row_id = next_row_id, next_row_id + file.record_count
            inherited = manifest.sequence_number or 0
            sequence = inherited if entry.sequence_number is None else entry.sequence_number
            snapshot_id = manifest.added_snapshot_id if entry.snapshot_id is None else entry.snapshot_id
            found.append(Entry(file, absolute(file.file_path), sequence, snapshot_id, first))
    return found


def _avro(source: Source, location: str, schema: Any, types: dict[int, Any], enums: dict[int, Any]) -> Any:
    try:
        data = source.read(location)
    except NotFoundError as e:
        raise CorruptDataError(
            f"the source's metadata file {location} is missing, though {source.location} names it: restore it, or expire "
            "the snapshots that need it in the source"
        ) from e
    return AvroFile(_Bytes(location, data), schema, read_types=types, read_enums=enums)
