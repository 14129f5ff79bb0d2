"""Rows that the source deletes by position: position delete files and v3 deletion vectors, as bitmaps by data file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFileContent, FileFormat
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError, NotFoundError, UnsupportedError
from vectorlake.extend import to_bitmap
from vectorlake_iceberg._read import Entry, absolute

_MAGIC: Final = b"\xd1\xd3\x39\x64"
_READERS: Final = 16
_PATH_ID: Final = 2_147_483_546
"""The field id of `file_path` in position delete files."""

Deletes = list[tuple[Entry, Mapping[str, BitMap64]]]
"""Delete files with the positions that each deletes, by the URI of the data file."""


def check_supported(entries: Iterable[Entry]) -> None:
    """Refuse what can't be applied, before anything is written.

    Raises:
        UnsupportedError: names the file, and what to do in the source.
    """
    for entry in entries:
        file = entry.file
        if file.content == DataFileContent.EQUALITY_DELETES:
            raise UnsupportedError(
                f"the source deletes rows by equality ({file.file_path}), which needs its columns compared at every read: "
                "compact it first (Spark: CALL system.rewrite_data_files with 'delete-file-threshold' 1), then try again"
            )
        if file.key_metadata is not None:
            raise UnsupportedError(
                f"the source file {file.file_path} is encrypted, which this release can't read"
            )
        if file.content == DataFileContent.DATA and file.file_format != FileFormat.PARQUET:
            raise UnsupportedError(
                f"the source file {file.file_path} is {file.file_format.value}, and only Parquet is read in place: set "
                "write.format.default to parquet in the source and run rewrite_data_files, then try again"
            )
        if file.content == DataFileContent.POSITION_DELETES and file.file_format not in (
            FileFormat.PARQUET,
            FileFormat.PUFFIN,
        ):
            raise UnsupportedError(
                f"the source's delete file {file.file_path} is {file.file_format.value}: run "
                "rewrite_position_delete_files or rewrite_data_files in the source, then try again"
            )


def read_deletes(entries: Iterable[Entry], read: Callable[[str], bytes]) -> Deletes:
    """The positions that each delete file deletes; a file of several deletion vectors is read once.

    Raises:
        CorruptDataError: a delete file is missing or damaged; names it.
    """
    by_path: dict[str, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(entry.file.file_path, []).append(entry)

    def one(path: str) -> Deletes:
        try:
            data = read(path)
        except NotFoundError as e:
            raise CorruptDataError(
                f"the source's delete file {path} is missing, though its metadata names it"
            ) from e
        return [(entry, _positions(entry, path, data)) for entry in by_path[path]]

    with ThreadPoolExecutor(_READERS) as pool:
        return [found for part in pool.map(one, by_path) for found in part]


def concerning(entries: Iterable[Entry], uris: Iterable[str]) -> list[Entry]:
    """The delete files that may delete rows of some data files, by what their manifests say of them."""
    wanted = frozenset(uris)
    # Bounds are of paths as the writer wrote them.
    paths = frozenset(
        path.encode()
        for uri in wanted
        for path in (uri, uri.removeprefix("file://"), uri.replace("file://", "file:", 1))
    )
    return [entry for entry in entries if wanted and _may_concern(entry, wanted, paths)]


def _may_concern(entry: Entry, uris: Collection[str], paths: Collection[bytes]) -> bool:
    if entry.referenced is not None:
        return entry.referenced in uris
    low = (entry.file.lower_bounds or {}).get(_PATH_ID)
    high = (entry.file.upper_bounds or {}).get(_PATH_ID)
    if low is None or high is None:
        return True
    return low in paths if low == high else any(low <= path <= high for path in paths)


def _positions(entry: Entry, path: str, data: bytes) -> Mapping[str, BitMap64]:
    if entry.file.file_format == FileFormat.PUFFIN:
        return _deletion_vector(entry, data)
    return _position_deletes(path, data)


def _position_deletes(path: str, data: bytes) -> dict[str, BitMap64]:
    try:
        table = pq.read_table(pa.BufferReader(data), columns=["file_path", "pos"])
    except (pa.ArrowInvalid, OSError, KeyError) as e:
        raise CorruptDataError(f"the source's delete file {path} is no position delete file: {e}") from e
    encoded = table["file_path"].combine_chunks().dictionary_encode()
    codes, positions = encoded.indices.to_numpy(), table["pos"].to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    found: dict[str, BitMap64] = {}
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        bitmap = to_bitmap(positions[order[starts[code] : starts[code + 1]]])
        uri = absolute(name)
        found[uri] = found[uri] | bitmap if uri in found else bitmap
    return found


def _deletion_vector(entry: Entry, data: bytes) -> dict[str, BitMap64]:
    """One `deletion-vector-v1` blob (Puffin specification): length, magic, bitmap, CRC-32."""
    path, blob, referenced = entry.file.file_path, entry.blob, entry.referenced
    if blob is None or referenced is None:
        raise CorruptDataError(
            f"the deletion vector in {path} does not say where it lies or which file it is for"
        )
    block = data[blob[0] : blob[0] + blob[1]]
    body, checksum = block[4:-4], block[-4:]
    if (
        len(block) != blob[1]
        or int.from_bytes(block[:4], "big") != len(body)
        or body[:4] != _MAGIC
        or zlib.crc32(body) != int.from_bytes(checksum, "big")
    ):
        raise CorruptDataError(
            f"the deletion vector at {path} [{blob[0]}, +{blob[1]}) is damaged: restore it in the source"
        )
    bitmap = BitMap64.deserialize(body[4:])
    if len(bitmap) != entry.file.record_count:
        raise CorruptDataError(
            f"the deletion vector at {path} [{blob[0]}, +{blob[1]}) deletes {len(bitmap)} rows, "
            f"its manifest says {entry.file.record_count}"
        )
    return {referenced: bitmap}


def applied(deletes: Deletes, data: Iterable[Entry]) -> dict[str, BitMap64]:
    """The positions deleted of each of some data files, those without left out.

    A data file's deletion vector stands for all its deletes; position delete files apply to data that is not newer
    (Iceberg specification, "Scan Planning").
    """
    vectors: dict[str, BitMap64] = {}
    files: dict[str, list[tuple[int, BitMap64]]] = {}
    for entry, by_file in deletes:
        for uri, bitmap in by_file.items():
            if entry.file.file_format == FileFormat.PUFFIN:
                vectors[uri] = bitmap
            else:
                files.setdefault(uri, []).append((entry.sequence, bitmap))
    found: dict[str, BitMap64] = {}
    for entry in data:
        older = (deleted for sequence, deleted in files.get(entry.uri, ()) if sequence >= entry.sequence)
        bitmap = vectors[entry.uri] if entry.uri in vectors else BitMap64().union(*older)
        if not bitmap:
            continue
        if bitmap.max() >= entry.file.record_count:
            raise CorruptDataError(
                f"the source deletes row {bitmap.max()} of {entry.uri}, which has {entry.file.record_count} rows"
            )
        found[entry.uri] = bitmap
    return found
