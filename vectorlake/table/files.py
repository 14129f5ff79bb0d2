"""Open data files of a table, each once: our own by relative path, foreign ones by URI, checked to be unchanged."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.formats.protocol import FileReader, FileSource
from vectorlake.formats.registry import format_named
from vectorlake.metadata.fragment import DataFile
from vectorlake.plan.foreign import resolve_fields
from vectorlake.schema import Field
from vectorlake.store.protocol import Store
from vectorlake.table.context import Context, Integrity
from vectorlake.table.key_segments import KeySegments
from vectorlake.table.memo import Memo

_OPEN_FILES: Final = 128


class DataFiles:
    """The open data files of one table; the least recently used are closed. Safe to share between threads."""

    def __init__(self, store: Store, context: Context) -> None:
        self._store = store
        self.context = context
        self.integrity = context.integrity
        self._open: OrderedDict[str, FileReader] = OrderedDict()
        self._fields: dict[str, tuple[Field, ...]] = {}
        self._lock = Lock()
        self.keys = KeySegments(store, context.integrity)
        """The table's key segments."""
        self.memo = Memo()
        """What else of the table is open, such as index files."""

    def source(self, file: DataFile) -> FileSource:
        """Where a file lies."""
        store, path = self.context.resolve(file.path) if file.foreign else (self._store, file.path)
        checksum = file.checksum if self.integrity is Integrity.CHECKSUM else None
        return FileSource(store, path, file.size, checksum)

    def open(self, file: DataFile) -> FileReader:
        """A reader of the file.

        Raises:
            CorruptDataError: it is missing, has another length than registered, (foreign) another e-tag, or, if
                that is asked for, another checksum.
        """
        with self._lock:
            reader = self._open.get(file.path)
            if reader is not None:
                self._open.move_to_end(file.path)
                return reader
        source = self.source(file)
        if file.foreign:
            check_unchanged(file, source)
        reader = format_named(file.format).open(source)
        with self._lock:
            # Readers in use elsewhere stay valid: dropping our reference closes a file once its last user is done.
            self._open[file.path] = reader
            while len(self._open) > _OPEN_FILES:
                self._fields.pop(self._open.popitem(last=False)[0], None)
        return reader

    def fields(self, file: DataFile) -> tuple[Field, ...]:
        """The columns that a file physically has, with the table's field ids; a foreign file is asked itself."""
        if not file.layout.by_field_id:
            return file.layout.fields
        known = self._fields.get(file.path)
        if known is None:
            known = self._fields[file.path] = resolve_fields(file.layout, self.open(file).schema)
        return known


def check_unchanged(file: DataFile, source: FileSource) -> None:
    """Refuse a foreign file that is gone or not the one that was registered.

    Raises:
        CorruptDataError: names the file, what was registered and what is there.
    """
    try:
        info = source.store.head(source.path)
    except NotFoundError as e:
        raise CorruptDataError(
            f"the source file {file.path} is missing: it was removed after it was imported; sync the table with its "
            "source, or restore the file"
        ) from e
    if info.size != file.size or (
        file.e_tag is not None and info.e_tag is not None and info.e_tag != file.e_tag
    ):
        raise CorruptDataError(
            f"the source file {file.path} has changed since it was imported ({info.size} bytes, e-tag {info.e_tag}; "
            f"registered {file.size} bytes, e-tag {file.e_tag}); sync the table with its source, or restore the file"
        )
