"""Which columns share a file, and in which format: the column groups of a newly written fragment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.schema import Field, describe, did_you_mean, is_multivector, is_vector, listing

SCALAR_FORMAT: Final = "write.scalar-format"
VECTOR_FORMAT: Final = "write.vector-format"
BLOB_FORMAT: Final = "write.blob-format"
SMALL_FORMAT: Final = "write.small-format"
SMALL_ROWS: Final = "write.small-rows"
FRAGMENT_ROWS: Final = "write.fragment-rows"
FRAGMENT_BYTES: Final = "write.fragment-bytes"

DEFAULTS: Final[Mapping[str, str]] = {
    SCALAR_FORMAT: "vortex",
    VECTOR_FORMAT: "lance",
    BLOB_FORMAT: "lance",
    SMALL_FORMAT: "arrow",
    SMALL_ROWS: "16384",
    FRAGMENT_ROWS: "1048576",
    FRAGMENT_BYTES: str(1 << 30),
}
FORMATS: Final = ("parquet", "lance", "vortex", "arrow")
_FALLBACKS: Final = ("parquet", "lance", "arrow")

Unsupported = Callable[[str, pa.Schema], Sequence[str]]
"""Format name and schema → names of the columns that the format can't hold."""


@dataclass(frozen=True, slots=True)
class ColumnGroup:
    """Columns that are written into one file of one format."""

    format: str
    fields: tuple[Field, ...]

    @property
    def blob_columns(self) -> frozenset[str]:
        return frozenset(field.name for field in self.fields if field.logical == "blob")


def check_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Table properties with their values checked; unknown `write.` ones are refused, others are the user's own.

    Raises:
        InvalidInputError: names the property and what it takes.
    """
    for key, value in properties.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidInputError(f"table properties are strings: {key!r}: {value!r}")
        if not key.startswith("write."):
            continue
        if key not in DEFAULTS:
            raise InvalidInputError(
                f"no property {key!r}{did_you_mean(key, list(DEFAULTS))}; there is {listing(list(DEFAULTS))}"
            )
        if key.endswith("-format") and value not in FORMATS:
            raise InvalidInputError(f"{key} must be one of {listing(list(FORMATS))}, not {value!r}")
        if not key.endswith("-format") and not (value.isdigit() and int(value) > 0):
            raise InvalidInputError(f"{key} must be a positive integer, not {value!r}")
    return dict(properties)


def column_groups(
    fields: Sequence[Field], properties: Mapping[str, str], unsupported: Unsupported
) -> list[ColumnGroup]:
    """Scalars share a file; each vector, multivector and blob column has one of its own, so it can be replaced alone.

    A column that its format can't hold goes to the first format that can.

    Raises:
        UnsupportedError: no format holds it; names the column and its type.
    """
    wanted = {**DEFAULTS, **properties}
    shared: list[Field] = []
    groups: list[ColumnGroup] = []
    for field in fields:
        if field.logical == "blob":
            groups.append(ColumnGroup(_holder(field, wanted[BLOB_FORMAT], unsupported), (field,)))
        elif is_vector(field.type) or is_multivector(field.type):
            groups.append(ColumnGroup(_holder(field, wanted[VECTOR_FORMAT], unsupported), (field,)))
        else:
            shared.append(field)
    by_format: dict[str, list[Field]] = {}
    for field in shared:
        by_format.setdefault(_holder(field, wanted[SCALAR_FORMAT], unsupported), []).append(field)
    return [*(ColumnGroup(name, tuple(held)) for name, held in by_format.items()), *groups]


def small_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties by which a write of fewer rows than `write.small-rows` is laid out.

    Such fragments wait for a compaction, and what they cost is mostly what it costs to begin a file: they are in a format
    that is quick to begin and to open, unless the table's properties name one for the column.
    """
    small = {**DEFAULTS, **properties}[SMALL_FORMAT]
    return {SCALAR_FORMAT: small, VECTOR_FORMAT: small, **properties}


def _holder(field: Field, preferred: str, unsupported: Unsupported) -> str:
    schema = pa.schema([field.to_storage()])
    for name in (preferred, *_FALLBACKS):
        if not unsupported(name, schema):
            return name
    raise UnsupportedError(
        f"column {field.name!r} of type {describe(field.type)} can't be stored in any data-file format"
    )
