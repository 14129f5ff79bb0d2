"""Read Parquet columns by Parquet's own types: Arrow before 26 fails at a null among lists of fixed size.

Arrow takes types that Parquet lacks from the Arrow schema in the footer. Without it, such lists read as lists of any
length, whose nulls all releases read, and the caller casts them.
"""

from __future__ import annotations

import io
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from vectorlake.formats.lowering import all_types

_READS_FIXED_LISTS: Final = int(pa.__version__.partition(".")[0]) >= 26
_MAGIC: Final = b"PAR1"
_KEY: Final = b"ARROW:schema"


def reads_exactly(schema: pa.Schema) -> bool:
    """Whether this release of Arrow reads all values of columns of these types."""
    return _READS_FIXED_LISTS or not any(
        pa.types.is_fixed_size_list(part) for kind in schema.types for part in all_types(kind)
    )


def metadata_of_plain_types(file: BinaryIO | pa.NativeFile) -> pq.FileMetaData:
    """The metadata of an open Parquet file, without the Arrow schema."""
    size = file.seek(0, io.SEEK_END)
    file.seek(size - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    file.seek(size - 8 - length)
    # Of the same length, so that no offset moves; a footer has it once, as a key.
    footer = file.read(length).replace(_KEY, _KEY.replace(b":", b"_"))
    return pq.read_metadata(pa.BufferReader(_MAGIC + footer + tail))
