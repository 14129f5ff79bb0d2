"""Named arrays in one immutable Arrow IPC file: written whole, mapped locally, read by range from an object store.

The file has one record batch of one row, each column a list of bytes: any Arrow tool opens it. Where each array's bytes
begin is told beside the file (`metadata.index.IndexFile`), so that nothing has to be parsed to read a part of one.
An array written with *cuts* can be read part by part, each with a checksum of its own. One of int64 is stored as
differences from its least number where these need fewer bytes: row ids mostly need four.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from vectorlake.errors import CorruptDataError, NotFoundError, StorageError
from vectorlake.formats.checksum import checksum_of
from vectorlake.index.protocol import Arrays
from vectorlake.metadata.index import ArrayInfo, IndexFile
from vectorlake.store.protocol import Store

_PREFIX: Final = "xxh3-64:"
_CUTS: Final = ".cuts"
_CHECKS: Final = ".checks"
CACHE_BYTES: Final = 256 << 20
"""How much of one remote file is kept in memory."""
_ALIGN: Final = 64
_PROBE: Final = b"where values begin"
_SMALL: Final = 64 << 10
"""Arrays of a remote file of up to so many bytes come along with whichever is asked for first."""
_WHOLE: Final = 1 << 20
"""And so do all arrays of a file of up to so many bytes."""
_GAP: Final = 32 << 10
"""Ranges with less than this between them are fetched as one: a request costs more."""
_NARROW: Final = (np.uint8, np.uint16, np.uint32)

Cuts = Mapping[str, npt.NDArray[np.int64]]
"""Array name → first row of each of its parts, and the end: int64 [parts + 1]."""


def write_arrays(path: Path, arrays: Arrays, cuts: Cuts, *, name: str) -> IndexFile:
    """Write arrays into a new local file.

    Args:
        path: where; it must not exist.
        arrays: any shapes, plain number types.
        cuts: for arrays that are to be read in parts.
        name: what the file will be called in the table, e.g. `index/….arrow`.

    Returns:
        what a snapshot keeps of the file. Nothing is synced: the store does that.
    """
    # What is read in parts comes last: all else is read in one piece.
    full = {key: array for key, array in arrays.items() if key not in cuts}
    for cut, bounds in cuts.items():
        rows = np.ascontiguousarray(arrays[cut])
        full[cut + _CUTS] = np.asarray(bounds, np.int64)
        full[cut + _CHECKS] = np.array(
            [_digest(rows[a:b]) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)],
            np.uint64,
        )
    bases = {key: base for key, array in full.items() if (base := _base_of(array)) is not None}
    flat = {key: _narrowed(array, bases.get(key)) for key, array in full.items()}
    flat |= {cut: np.ascontiguousarray(arrays[cut]) for cut in cuts}
    sizes = [array.nbytes for array in flat.values()]
    start = _first_offset(_batch([b""] * (2 * len(flat)), list(flat)))
    columns: list[npt.NDArray[Any] | bytes] = []
    for array, filler in zip(flat.values(), _fillers(start, sizes), strict=True):
        columns += [bytes(filler), array]
    batch = _batch(columns, list(flat))  # one without columns where a model has nothing to keep
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    offsets = _offsets(path)
    return IndexFile(
        path=name,
        size=path.stat().st_size,
        checksum=checksum_of(path),
        arrays={
            key: ArrayInfo(
                offset=offsets[key],
                dtype=array.dtype.str,
                shape=tuple(int(n) for n in array.shape),
                checksum=f"{_PREFIX}{_digest(array):016x}",
                base=bases.get(key),
            )
            for key, array in flat.items()
        },
    )


def _base_of(array: npt.NDArray[Any]) -> int | None:
    """What to store differences from; None where the array is stored as it is."""
    if array.dtype != np.int64 or not array.size:
        return None
    low, high = int(array.min()), int(array.max())
    return low if high - low <= np.iinfo(_NARROW[-1]).max else None


def _narrowed(array: npt.NDArray[Any], base: int | None) -> npt.NDArray[Any]:
    if base is None:
        return np.ascontiguousarray(array)
    spread = int(array.max()) - base
    kind = next(kind for kind in _NARROW if spread <= np.iinfo(kind).max)
    return np.ascontiguousarray((array - base).astype(kind))


def _widened(array: npt.NDArray[Any], base: int | None) -> npt.NDArray[Any]:
    return array if base is None else array.astype(np.int64) + base


_LIST: Final = pa.large_list(pa.field("item", pa.uint8(), False))
_OFFSETS_BYTES: Final = 16
"""Of a list column of one row: two 64-bit offsets stand before its values."""


def _batch(columns: Sequence[npt.NDArray[Any] | bytes], names: Sequence[str]) -> pa.RecordBatch:
    """One row, each array after a filler that puts it where a cache line begins."""
    fields = [pa.field(label, _LIST, False) for name in names for label in (f"filler.{name}", name)]
    return pa.RecordBatch.from_arrays([_as_list(column) for column in columns], schema=pa.schema(fields))


def _as_list(column: npt.NDArray[Any] | bytes) -> pa.Array:
    data = column if isinstance(column, bytes) else _bytes_of(column)
    size = len(data)
    values = pa.Array.from_buffers(pa.uint8(), size, [None, pa.py_buffer(data)])
    return pa.LargeListArray.from_arrays(pa.array([0, size], pa.int64()), values, type=_LIST)


def _fillers(start: int, sizes: Sequence[int]) -> list[int]:
    """Bytes of filler before each array, given where the first filler's values begin."""
    fillers = []
    place = start
    for size in sizes:
        fillers.append(-(place + _OFFSETS_BYTES) % _ALIGN)
        place += fillers[-1] + _OFFSETS_BYTES + -(-size // 8) * 8 + _OFFSETS_BYTES
    return fillers


def _first_offset(empty: pa.RecordBatch) -> int:
    """Where the values of a file's first column begin; the header's length depends on the schema alone."""
    if not empty.num_columns:
        return 0
    sink = pa.BufferOutputStream()
    probe = empty.set_column(0, empty.schema.field(0), _as_list(_PROBE))
    with pa.ipc.new_file(sink, probe.schema) as writer:
        writer.write_batch(probe)
    written: bytes = sink.getvalue().to_pybytes()
    return written.index(_PROBE)


def _offsets(path: Path) -> dict[str, int]:
    """Where each column's bytes begin in the file."""
    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer()
        batch = pa.ipc.open_file(pa.BufferReader(whole)).get_batch(0)
        return {
            name: batch.column(i).values.buffers()[1].address - whole.address
            if len(batch.column(i).values)
            else 0
            for i, name in enumerate(batch.schema.names)
        }


class ArrayFile:
    """The arrays of an index file, read-only. Safe to share between threads.

    A local file is mapped and checked whole once, when it is opened. From a remote one only what is asked for is read,
    each array or part is checked, and what was read last is kept in memory.

    Raises:
        CorruptDataError: the file is missing, or a byte of it is not what was written; names the file.
    """

    def __init__(self, store: Store, file: IndexFile, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._store = store
        self._file = file
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._kept_bytes = 0
        self._cache_bytes = cache_bytes
        self._fetched = 0
        self._map: mmap.mmap | None = None
        path = store.local_path(file.path)
        if path is not None:
            self._map = self._mapped(path)

    @property
    def where(self) -> str:
        """The file, for messages."""
        return f"{self._store.uri}/{self._file.path}"

    @property
    def local(self) -> bool:
        return self._map is not None

    @property
    def bytes_read(self) -> int:
        return self._fetched

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._file.size

    def __contains__(self, name: object) -> bool:
        return name in self._file.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        info = self._info(name)
        if self._map is not None and info.base is None:
            return self._view(info)
        with self._lock:
            if (kept := self._kept.get((name, -1))) is not None:
                self._kept.move_to_end((name, -1))
                return kept
        if self._map is None:
            return self._fetch(name)
        wide = _widened(self._view(info), info.base)
        self._keep((name, -1), wide)
        return wide

    def _fetch(self, name: str) -> np.ndarray:
        """An array from the store, and in the same round trip all small ones that are not there yet: they follow soon."""
        limit = _WHOLE if self._file.size <= _WHOLE else _SMALL
        small = [one for one, info in self._file.arrays.items() if _nbytes(info) <= limit and one != name]
        with self._lock:
            names = [name, *(one for one in small if (one, -1) not in self._kept)]
        infos = [self._file.arrays[one] for one in names]
        fetched: list[np.ndarray] = []
        blobs = self._get([(info.offset, _nbytes(info)) for info in infos])
        for one, info, data in zip(names, infos, blobs, strict=True):
            if (found := f"{_PREFIX}{xxhash.xxh3_64_intdigest(data):016x}") != info.checksum:
                raise self._damaged(f"array {one!r} has checksum {found}, written with {info.checksum}")
            stored = np.frombuffer(data, np.dtype(info.dtype)).reshape(info.shape)
            fetched.append(_widened(stored, info.base))
            self._keep((one, -1), fetched[-1])
        return fetched[0]

    def parts(self, name: str, wanted: Sequence[int]) -> list[np.ndarray]:
        bounds = self[name + _CUTS]
        if self._map is not None:
            whole = self[name]
            return [whole[bounds[part] : bounds[part + 1]] for part in wanted]
        info = self._info(name)
        found: dict[int, np.ndarray] = {}
        with self._lock:
            for part in wanted:
                if (kept := self._kept.get((name, part))) is not None:
                    self._kept.move_to_end((name, part))
                    found[part] = kept
        missing = sorted(set(wanted) - found.keys())
        if missing:
            found.update(self._fetch_parts(name, info, bounds, missing))
        return [found[part] for part in wanted]

    def _fetch_parts(
        self, name: str, info: ArrayInfo, bounds: np.ndarray, missing: Sequence[int]
    ) -> dict[int, np.ndarray]:
        checks = self[name + _CHECKS]
        row = np.dtype(info.dtype).itemsize * int(np.prod(info.shape[1:], dtype=np.int64))
        runs: list[list[int]] = []
        for part in missing:
            if runs and (int(bounds[part]) - int(bounds[runs[-1][-1] + 1])) * row <= _GAP:
                runs[-1].append(part)
            else:
                runs.append([part])
        spans = [(int(bounds[run[0]]), int(bounds[run[-1] + 1])) for run in runs]
        blobs = self._get([(info.offset + a * row, (b - a) * row) for a, b in spans])
        found: dict[int, np.ndarray] = {}
        for run, (start, _), blob in zip(runs, spans, blobs, strict=True):
            rows = np.frombuffer(blob, np.dtype(info.dtype)).reshape(-1, *info.shape[1:])
            for part in run:
                piece = rows[int(bounds[part]) - start : int(bounds[part + 1]) - start]
                if _digest(piece) != int(checks[part]):
                    raise self._damaged(f"part {part} of array {name!r} is not what was written")
                found[part] = piece
                self._keep((name, part), piece)
        return found

    def _keep(self, key: tuple[str, int], array: np.ndarray) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = array
                self._kept_bytes += array.nbytes
            while len(self._kept) > 1 and self._kept_bytes > self._cache_bytes:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

    def _get(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        wanted = [(start, length) for start, length in ranges if length]
        try:
            read = iter(self._store.get_ranges(self._file.path, wanted) if wanted else [])
        except NotFoundError as e:
            raise self._damaged("it is missing") from e
        blobs = [next(read) if length else b"" for _, length in ranges]
        if any(len(blob) != length for blob, (_, length) in zip(blobs, ranges, strict=True)):
            raise self._damaged("it is shorter than it was written")
        with self._lock:
            self._fetched += sum(len(blob) for blob in blobs)
        return blobs

    def _mapped(self, path: Path) -> mmap.mmap:
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError) as e:
            raise self._damaged("it is missing or empty") from e
        except OSError as e:
            raise StorageError(f"{self.where} can't be read: {e}") from e
        if len(mapped) != self._file.size:
            raise self._damaged(f"it has {len(mapped)} bytes, written with {self._file.size}")
        if (found := f"{_PREFIX}{xxhash.xxh3_64_intdigest(memoryview(mapped)):016x}") != self._file.checksum:
            raise self._damaged(
                f"{self._first_damaged(mapped)}it has checksum {found}, written with {self._file.checksum}"
            )
        return mapped

    def _first_damaged(self, mapped: mmap.mmap) -> str:
        """Which array the damage is in, for the message; nothing if it is between them."""
        for name, info in self._file.arrays.items():
            data = memoryview(mapped)[info.offset : info.offset + _nbytes(info)]
            if f"{_PREFIX}{xxhash.xxh3_64_intdigest(data):016x}" != info.checksum:
                return f"array {name!r} is not what was written; "
        return ""

    def _view(self, info: ArrayInfo) -> np.ndarray:
        assert self._map is not None
        count = int(np.prod(info.shape, dtype=np.int64))
        return np.frombuffer(self._map, np.dtype(info.dtype), count, info.offset).reshape(info.shape)

    def _info(self, name: str) -> ArrayInfo:
        info = self._file.arrays.get(name)
        if info is None:
            raise self._damaged(f"it has no array {name!r}")
        return info

    def _damaged(self, what: str) -> CorruptDataError:
        return CorruptDataError(f"index file {self.where} is damaged: {what}; rebuild the index, or drop it")


class MemoryArrays:
    """Arrays that were just made, as a source."""

    def __init__(self, arrays: Arrays, cuts: Cuts) -> None:
        self._arrays = arrays
        self._cuts = cuts

    local = True
    bytes_read = 0

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def parts(self, name: str, wanted: Sequence[int]) -> list[np.ndarray]:
        bounds = self._cuts[name]
        return [self._arrays[name][bounds[part] : bounds[part + 1]] for part in wanted]


def _digest(array: np.ndarray) -> int:
    rows = np.ascontiguousarray(array)
    return xxhash.xxh3_64_intdigest(_bytes_of(rows))


def _bytes_of(array: npt.NDArray[Any]) -> memoryview | bytes:
    flat: Any = array.reshape(-1)  # typeshed does not know arrays as buffers
    return memoryview(flat).cast("B") if array.size else b""


def _nbytes(info: ArrayInfo) -> int:
    return np.dtype(info.dtype).itemsize * int(np.prod(info.shape, dtype=np.int64))
