"""Logical types on Arrow: fields with stable ids, the constructors that users write, and conversion from and to Arrow.

A table's schema is a tree of `Field`s. Ids are given once and never reused, so files written under an older schema are
read by id, whatever columns are called today (format specification, section "Schema").
"""

from __future__ import annotations

import base64
import ctypes
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
import pyarrow as pa

from vectorlake.errors import InvalidInputError, NotFoundError, UnsupportedError

ROW_ID: Final = "_row_id"
LAST_UPDATED_VERSION: Final = "_last_updated_version"
ROW_ID_FIELD_ID: Final = 2_147_483_540
VERSION_FIELD_ID: Final = 2_147_483_539
"""The field id that Iceberg v3 reserves for row lineage's `_row_id`, used here for the same thing."""

RESERVED_COLUMNS: Final = frozenset({ROW_ID, LAST_UPDATED_VERSION})

LOGICAL_KEY: Final = b"vectorlake:logical"
_EXTENSION_NAME: Final = b"ARROW:extension:name"
_EXTENSION_METADATA: Final = b"ARROW:extension:metadata"

Logical: TypeAlias = Literal["text", "blob", "geo"]


class ScalarType(msgspec.Struct, frozen=True):
    """A type without children, by its name in the specification, e.g. `int64` or `timestamp(us, UTC)`."""

    name: str


class StructType(msgspec.Struct, frozen=True):
    """Named children."""

    fields: tuple[Field, ...]


class ListType(msgspec.Struct, frozen=True):
    """A list of any length; `large` for 64-bit offsets."""

    element: Field
    large: bool = False


class FixedListType(msgspec.Struct, frozen=True):
    """A list of one fixed length: a vector when its elements are numbers."""

    element: Field
    size: int


class MapType(msgspec.Struct, frozen=True):
    """Key-value pairs."""

    key: Field
    value: Field


class ExtensionType(msgspec.Struct, frozen=True):
    """An Arrow extension type: stored as `storage`, and wrapped again where the extension is registered."""

    name: str
    storage: Type
    metadata: str = ""
    """The extension's serialized parameters, base64."""


Type: TypeAlias = ScalarType | StructType | ListType | FixedListType | MapType | ExtensionType


class Field(msgspec.Struct, frozen=True):
    """A column, or a child of one, known by `id`; `default` is a JSON literal that rows of older files read as."""

    id: int
    name: str
    type: Type
    nullable: bool = True
    default: Any = None
    logical: str | None = None
    metadata: dict[str, str] = {}
    extra: dict[str, Any] = {}

    def children(self) -> tuple[Field, ...]:
        """The fields one level down; an extension type's are those of its storage."""
        return type_children(self.type)

    def walk(self) -> Iterator[Field]:
        """This field and all below it, parents first."""
        yield self
        for child in self.children():
            yield from child.walk()

    def to_arrow(self) -> pa.Field:
        """As an Arrow field, with extension types wrapped where they are registered."""
        metadata = {key.encode(): value.encode() for key, value in self.metadata.items()}
        if self.logical:
            metadata[LOGICAL_KEY] = self.logical.encode()
        if self.logical == "geo":
            metadata[_EXTENSION_NAME] = b"geoarrow.wkb"
        return pa.field(self.name, type_to_arrow(self.type), self.nullable, metadata or None)

    def to_storage(self) -> pa.Field:
        """As an Arrow field with every extension type, at any depth, replaced by its storage: what files hold."""
        return pa.field(self.name, type_to_arrow(self.type, storage=True), self.nullable)


class Schema(msgspec.Struct, frozen=True):
    """The columns of a table at one version, in order."""

    fields: tuple[Field, ...]
    extra: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    def to_arrow(self) -> pa.Schema:
        """As the Arrow schema that scans yield."""
        return pa.schema([field.to_arrow() for field in self.fields])

    def to_storage(self) -> pa.Schema:
        """As the Arrow schema that data files hold: extension types replaced by their storage."""
        return pa.schema([field.to_storage() for field in self.fields])

    def field(self, name: str) -> Field:
        """The top-level column of that name; `NotFoundError` with close names if there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise NotFoundError(
            f"no column {name!r}{did_you_mean(name, self.names)}; the columns are {listing(self.names)}"
        )

    def by_id(self, field_id: int) -> Field | None:
        """The top-level column of that id."""
        return next((field for field in self.fields if field.id == field_id), None)

    def walk(self) -> Iterator[Field]:
        """All fields at every depth, parents first."""
        for field in self.fields:
            yield from field.walk()


def did_you_mean(name: str, known: list[str]) -> str:
    """`" (did you mean 'x'?)"` when something of a close name is known, else nothing."""
    from difflib import get_close_matches

    folded = [candidate for candidate in known if candidate.lower() == name.lower()]
    close = folded or get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listing(names: list[str], most: int = 20) -> str:
    """Names for an error message, cut when there are many."""
    shown = ", ".join(names[:most]) or "none"
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"


# --- the constructors that users write -----------------------------------------------------------------------------

_ELEMENTS: Final[Mapping[str, pa.DataType]] = {
    "f32": pa.float32(), "float32": pa.float32(),
    "f16": pa.float16(), "float16": pa.float16(),
    "f64": pa.float64(), "float64": pa.float64(),
    "int8": pa.int8(), "i8": pa.int8(),
    "uint8": pa.uint8(), "u8": pa.uint8(),
}  # fmt: skip


def vector(dimension: int, element: str = "f32") -> pa.DataType:
    """The type of a vector column: a fixed-size list of numbers.

    Args:
        dimension: numbers in a vector; for `"binary"` bits, a multiple of 8.
        element: `"f32"`, `"f16"`, `"f64"`, `"int8"`, `"uint8"` or `"binary"` (bits packed into uint8).

    Raises:
        InvalidInputError: the dimension is not positive, or the element is unknown.
    """
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
        raise InvalidInputError(f"a vector's dimension must be a positive integer, not {dimension!r}")
    if element == "binary":
        if dimension % 8:
            raise InvalidInputError(
                f"a binary vector's dimension counts bits, a multiple of 8, not {dimension}"
            )
        return pa.list_(pa.field("item", pa.uint8()), dimension // 8)
    if element not in _ELEMENTS:
        raise InvalidInputError(
            f"unknown vector element {element!r}; choose from {listing([*_ELEMENTS, 'binary'])}"
        )
    return pa.list_(pa.field("item", _ELEMENTS[element]), dimension)


def multivector(dimension: int, element: str = "f32") -> pa.DataType:
    """The type of a multivector column (late interaction): a list of vectors of one dimension."""
    return pa.list_(pa.field("item", vector(dimension, element)))


class _Declared(pa.ExtensionType):  # type: ignore[misc]
    """A logical type as users declare it; tables store and return its storage type, marked in the field's metadata."""

    def __init__(self, logical: Logical, storage: pa.DataType) -> None:
        self.logical = logical
        super().__init__(storage, f"vectorlake.{logical}")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.logical.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> _Declared:
        return cls(serialized.decode(), storage_type)  # type: ignore[arg-type]


def text() -> pa.DataType:
    """The type of a column of natural-language text (stored as `string`)."""
    return _Declared("text", pa.string())


def blob() -> pa.DataType:
    """The type of a column of large binary values (images, audio), kept in files of their own."""
    return _Declared("blob", pa.large_binary())


def geo() -> pa.DataType:
    """The type of a column of geometries in well-known binary (`geoarrow.wkb`)."""
    return _Declared("geo", pa.binary())


# --- from Arrow ----------------------------------------------------------------------------------------------------

NextId: TypeAlias = Callable[[], int]


def field_from_arrow(field: pa.Field, next_id: NextId) -> Field:
    """An Arrow field with fresh ids at every depth, parents before children.

    Dictionaries are decoded, and views (`string_view`, `list_view`…) become the plain type: data files hold plain types.

    Raises:
        UnsupportedError: a type that no table can hold (null, union, …), named with its path.
    """
    metadata = dict(field.metadata or {})
    logical = metadata.pop(LOGICAL_KEY, b"").decode() or None
    if logical == "geo":
        metadata.pop(_EXTENSION_NAME, None)
    arrow_type = field.type
    if isinstance(arrow_type, _Declared):
        logical, arrow_type = arrow_type.logical, arrow_type.storage_type
    field_id = next_id()
    return Field(
        id=field_id,
        name=field.name,
        type=type_from_arrow(arrow_type, next_id, field.name),
        nullable=field.nullable,
        logical=logical,
        metadata={
            key.decode(errors="replace"): value.decode(errors="replace")
            for key, value in metadata.items()
            if not key.startswith((b"PARQUET:", b"lance", b"ARROW:extension:"))
        },
    )


def type_from_arrow(arrow_type: pa.DataType, next_id: NextId, path: str) -> Type:
    """An Arrow type as ours; `path` names it in errors."""
    t = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType):
        serialized = _extension_parameters(arrow_type)
        storage = type_from_arrow(arrow_type.storage_type, next_id, path)
        return ExtensionType(arrow_type.extension_name, storage, base64.b64encode(serialized).decode())
    if t.is_dictionary(arrow_type):
        return type_from_arrow(arrow_type.value_type, next_id, path)
    if t.is_run_end_encoded(arrow_type):
        return type_from_arrow(arrow_type.value_type, next_id, path)
    if t.is_struct(arrow_type):
        return StructType(tuple(field_from_arrow(child, next_id) for child in arrow_type.fields))
    if t.is_fixed_size_list(arrow_type):
        return FixedListType(field_from_arrow(arrow_type.value_field, next_id), arrow_type.list_size)
    if t.is_list(arrow_type) or t.is_large_list(arrow_type):
        return ListType(field_from_arrow(arrow_type.value_field, next_id), t.is_large_list(arrow_type))
    if t.is_list_view(arrow_type) or t.is_large_list_view(arrow_type):
        return ListType(field_from_arrow(arrow_type.value_field, next_id), t.is_large_list_view(arrow_type))
    if t.is_map(arrow_type):
        return MapType(
            field_from_arrow(arrow_type.key_field, next_id), field_from_arrow(arrow_type.item_field, next_id)
        )
    return ScalarType(_scalar_name(arrow_type, path))


def _scalar_name(arrow_type: pa.DataType, path: str) -> str:
    t = pa.types
    if arrow_type in _NAMES:
        return _NAMES[arrow_type]
    if t.is_string_view(arrow_type):
        return "string"
    if t.is_binary_view(arrow_type):
        return "binary"
    if t.is_fixed_size_binary(arrow_type):
        return f"fixed_size_binary({arrow_type.byte_width})"
    if t.is_decimal(arrow_type) and arrow_type.bit_width in (128, 256):
        return f"decimal{arrow_type.bit_width}({arrow_type.precision}, {arrow_type.scale})"
    if t.is_decimal(arrow_type):
        return f"decimal128({arrow_type.precision}, {arrow_type.scale})"
    if t.is_time32(arrow_type) or t.is_time64(arrow_type) or t.is_duration(arrow_type):
        kind = "duration" if t.is_duration(arrow_type) else "time32" if t.is_time32(arrow_type) else "time64"
        return f"{kind}({arrow_type.unit})"
    if t.is_timestamp(arrow_type):
        return (
            f"timestamp({arrow_type.unit}, {arrow_type.tz})"
            if arrow_type.tz
            else f"timestamp({arrow_type.unit})"
        )
    if t.is_null(arrow_type):
        raise UnsupportedError(
            f"column {path!r} has Arrow type null: give it a type (it holds no value to tell one)"
        )
    raise UnsupportedError(f"column {path!r} has Arrow type {arrow_type}, which no vectorlake table can hold")


_SCALARS: Final[Mapping[str, pa.DataType]] = {
    "bool": pa.bool_(), "string": pa.string(), "large_string": pa.large_string(),
    "binary": pa.binary(), "large_binary": pa.large_binary(), "date32": pa.date32(), "date64": pa.date64(),
    "float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64(),
    "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
    "uint8": pa.uint8(), "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(),
}  # fmt: skip
_NAMES: Final[Mapping[pa.DataType, str]] = {arrow: name for name, arrow in _SCALARS.items()}
_PARAMETRIC: Final = re.compile(r"(\w+)\(([^)]*)\)")


def type_children(kind: Type) -> tuple[Field, ...]:
    """The fields one level below a type."""
    match kind:
        case StructType(fields=fields):
            return fields
        case ListType(element=element) | FixedListType(element=element):
            return (element,)
        case MapType(key=key, value=value):
            return (key, value)
        case ExtensionType(storage=storage):
            return type_children(storage)
        case _:
            return ()


def type_to_arrow(kind: Type, *, storage: bool = False) -> pa.DataType:
    """Our type as Arrow's; with `storage`, extension types are replaced by what they are stored as."""

    def child(field: Field) -> pa.Field:
        return field.to_storage() if storage else field.to_arrow()

    match kind:
        case ScalarType(name=name):
            return scalar_to_arrow(name)
        case StructType(fields=fields):
            return pa.struct([child(field) for field in fields])
        case FixedListType(element=element, size=size):
            return pa.list_(child(element), size)
        case ListType(element=element, large=large):
            return pa.large_list(child(element)) if large else pa.list_(child(element))
        case MapType(key=key, value=value):
            return pa.map_(child(key), child(value))
        case ExtensionType(name=name, storage=stored, metadata=metadata):
            plain = type_to_arrow(stored, storage=True)
            return plain if storage else _wrap_extension(name, plain, base64.b64decode(metadata))


def scalar_to_arrow(name: str) -> pa.DataType:
    """A scalar type by its specified name; `UnsupportedError` for one that a newer release has added."""
    if name in _SCALARS:
        return _SCALARS[name]
    if match := _PARAMETRIC.fullmatch(name):
        kind, arguments = match[1], [part.strip() for part in match[2].split(",", 1)]
        match kind, arguments:
            case "fixed_size_binary", [width]:
                return pa.binary(int(width))
            case "decimal128", [precision, scale]:
                return pa.decimal128(int(precision), int(scale))
            case "decimal256", [precision, scale]:
                return pa.decimal256(int(precision), int(scale))
            case "time32", [unit]:
                return pa.time32(unit)
            case "time64", [unit]:
                return pa.time64(unit)
            case "duration", [unit]:
                return pa.duration(unit)
            case "timestamp", [unit]:
                return pa.timestamp(unit)
            case "timestamp", [unit, zone]:
                return pa.timestamp(unit, zone)
    raise UnsupportedError(
        f"the table uses type {name!r}, which this release does not know: upgrade vectorlake"
    )


class _CSchema(ctypes.Structure):
    """The head of Arrow's C data interface schema: the only door to a canonical extension type's parameters."""

    _fields_ = (("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_void_p))


def _extension_parameters(kind: pa.BaseExtensionType) -> bytes:
    if hasattr(kind, "__arrow_ext_serialize__"):
        return bytes(kind.__arrow_ext_serialize__())
    capsule = pa.field("x", kind).__arrow_c_schema__()
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = _CSchema.from_address(get_pointer(capsule, b"arrow_schema")).metadata

    def integer() -> int:
        nonlocal address
        value = ctypes.c_int32.from_address(address).value
        address += 4
        return value

    def text() -> bytes:
        nonlocal address
        length = integer()
        value = ctypes.string_at(address, length)
        address += length
        return value

    pairs = {text(): text() for _ in range(integer())} if address else {}
    return pairs.get(_EXTENSION_METADATA, b"")


def _wrap_extension(name: str, storage: pa.DataType, serialized: bytes) -> pa.DataType:
    """The registered extension type of that name, or its storage where it isn't registered.

    pyarrow resolves extension names only when it reads a serialized schema, hence the round trip.
    """
    field = pa.field("x", storage, metadata={_EXTENSION_NAME: name.encode(), _EXTENSION_METADATA: serialized})
    return pa.ipc.read_schema(pa.schema([field]).serialize()).field(0).type


def storage_array(array: pa.Array) -> pa.Array:
    """An array with dictionaries decoded and extension types, at any depth, replaced by their storage."""
    if isinstance(array.type, pa.BaseExtensionType):
        return storage_array(array.storage)
    if pa.types.is_dictionary(array.type):
        return storage_array(array.dictionary_decode())
    if pa.types.is_run_end_encoded(array.type):
        import pyarrow.compute as pc

        return storage_array(pc.run_end_decode(array))
    return array


# --- what vectors are ----------------------------------------------------------------------------------------------


def is_vector(kind: Type) -> bool:
    """Whether a type is a vector: a fixed-size list of float16/32/64, int8 or uint8."""
    return (
        isinstance(kind, FixedListType)
        and isinstance(kind.element.type, ScalarType)
        and kind.element.type.name in ("float16", "float32", "float64", "int8", "uint8")
    )


def is_multivector(kind: Type) -> bool:
    """Whether a type is a multivector: a list of vectors."""
    return isinstance(kind, ListType) and is_vector(kind.element.type)


def holds_vectors(kind: Type) -> bool:
    """Whether a type is a vector or a multivector."""
    return is_vector(kind) or is_multivector(kind)


def plain_columns(schema: Schema) -> list[str]:
    """The columns that hold no vectors: what is shown of rows by default."""
    return [field.name for field in schema.fields if not holds_vectors(field.type)]


def lists_of_numbers(schema: pa.Schema) -> list[str]:
    """The columns of a frame that can hold query vectors: lists, of any kind, of numbers."""
    t = pa.types
    found = []
    for field in schema:
        kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        if t.is_fixed_size_list(kind) or t.is_list(kind) or t.is_large_list(kind) or t.is_list_view(kind):
            element = kind.value_type
            if t.is_floating(element) or t.is_integer(element) or t.is_decimal(element):
                found.append(field.name)
    return found


def describe(kind: Type, logical: str | None = None) -> str:
    """A type in the words that `vectorlake schema` and errors use, e.g. `vector(384, f32)`."""
    if logical:
        return logical
    match kind:
        case ScalarType(name=name):
            return name
        case FixedListType(element=element, size=size) if is_vector(kind):
            return f"vector({size}, {describe(element.type).replace('float', 'f')})"
        case FixedListType(element=element, size=size):
            return f"fixed_list({describe(element.type)}, {size})"
        case ListType(element=element) if is_multivector(kind):
            return "multi" + describe(element.type)
        case ListType(element=element):
            return f"list({describe(element.type)})"
        case MapType(key=key, value=value):
            return f"map({describe(key.type)}, {describe(value.type)})"
        case StructType(fields=fields):
            return "struct(" + ", ".join(f"{f.name}: {describe(f.type)}" for f in fields) + ")"
        case ExtensionType(name=name):
            return name


def schema_from_arrow(schema: pa.Schema, first_id: int = 1) -> tuple[Schema, int]:
    """A fresh table schema from an Arrow schema, and the next free field id.

    Raises:
        InvalidInputError: duplicate, empty or reserved column names.
        UnsupportedError: a type that no table can hold.
    """
    check_names([field.name for field in schema])
    counter = iter(range(first_id, 2**31))
    used = first_id

    def next_id() -> int:
        nonlocal used
        used = next(counter)
        return used

    fields = tuple(field_from_arrow(field, next_id) for field in schema)
    return Schema(fields), (used + 1 if fields else first_id)


def check_names(names: list[str]) -> None:
    """Refuse duplicate, empty and reserved column names."""
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InvalidInputError("a column has an empty name: every column needs one")
        if name in RESERVED_COLUMNS or name.startswith("__vl_"):
            raise InvalidInputError(f"column name {name!r} is reserved by vectorlake: choose another")
        if name in seen:
            raise InvalidInputError(f"column {name!r} occurs twice: column names must be distinct")
        seen.add(name)
