"""Where the buffers of an Arrow IPC file lie, read from its footer and message headers alone, so that rows can be fetched
by range. Nothing of a batch's body is read for it.

The headers are flatbuffers (Apache Arrow format: File.fbs, Message.fbs); the few fields that count are read by hand.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

import pyarrow as pa

P = ParamSpec("P")
R = TypeVar("R")

_MAGIC: Final = b"ARROW1"
_TAIL: Final = 64 << 10
"""Bytes of the file's end that are read at first; the footer of a file of thousands of batches fits."""
_RECORD_BATCH: Final = 3

Read = Callable[[int, int], bytes]
"""Bytes of the file: first, length."""


@dataclass(frozen=True)
class Batch:
    """The header of one record batch.

    Attributes:
        rows: how many.
        compressed: whether its buffers are.
        nulls: of each array, children after parents, as the schema lists them.
        buffers: first byte in the file and length of each buffer, in the same order.
    """

    rows: int
    compressed: bool
    nulls: tuple[int, ...]
    buffers: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Block:
    """Where a record batch's message lies."""

    offset: int
    header: int


def _damage_is_a_value_error(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except struct.error as e:
            raise ValueError(f"its headers are cut or damaged: {e}") from e

    return guarded


@_damage_is_a_value_error
def blocks(read: Read, size: int) -> list[Block]:
    """The record batches of a file of so many bytes.

    Raises:
        ValueError: it is no Arrow file.
    """
    first = max(0, size - _TAIL)
    tail = read(first, size - first)
    if tail[-6:] != _MAGIC:
        raise ValueError("it does not end as an Arrow file does")
    (length,) = struct.unpack_from("<i", tail, len(tail) - 10)
    start = size - 10 - length
    footer = _Table.root(tail[start - first : -10] if start >= first else read(start, length))
    at, count = footer.vector(3)
    found = (struct.unpack_from("<qi4xq", footer.data, at + 24 * i) for i in range(count))
    return [Block(offset, header) for offset, header, _ in found]


@_damage_is_a_value_error
def header(read: Read, block: Block) -> Batch:
    """What a record batch's message says.

    Raises:
        ValueError: it is of another kind.
    """
    data = read(block.offset, block.header)
    start = 8 if data[:4] == b"\xff\xff\xff\xff" else 4
    message = _Table.root(data[start:])
    if message.scalar(1, "<B") != _RECORD_BATCH:
        raise ValueError("a message that should be a record batch is none")
    batch = message.table(2)
    body = block.offset + block.header
    nodes, node_count = batch.vector(1)
    buffers, buffer_count = batch.vector(2)
    return Batch(
        rows=int(batch.scalar(0, "<q")),
        compressed=batch.place(3) != 0,
        nulls=tuple(struct.unpack_from("<qq", batch.data, nodes + 16 * i)[1] for i in range(node_count)),
        buffers=tuple(
            (body + offset, length)
            for offset, length in (
                struct.unpack_from("<qq", batch.data, buffers + 16 * i) for i in range(buffer_count)
            )
        ),
    )


def first_of(schema: pa.Schema, column: int) -> tuple[int, int] | None:
    """The first array and the first buffer of a column, by number; None behind a type that can't be counted by hand."""
    arrays = buffers = 0
    for i in range(column):
        counted = _counts(schema.field(i).type)
        if counted is None:
            return None
        arrays, buffers = arrays + counted[0], buffers + counted[1]
    return arrays, buffers


def _counts(kind: pa.DataType) -> tuple[int, int] | None:
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _counts(kind.storage_type)
    if t.is_null(kind) or t.is_union(kind) or "view" in str(kind) or t.is_run_end_encoded(kind):
        return None
    if t.is_dictionary(kind):
        return 1, 2
    arrays, buffers = 1, kind.num_buffers
    for i in range(kind.num_fields):
        inner = _counts(kind.field(i).type)
        if inner is None:
            return None
        arrays, buffers = arrays + inner[0], buffers + inner[1]
    return arrays, buffers


@dataclass(frozen=True)
class _Table:
    """A flatbuffer's table."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def place(self, field: int) -> int:
        """Where a field's value is; 0 if it has its default."""
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        size = struct.unpack_from("<H", self.data, vtable)[0]
        slot = 4 + 2 * field
        offset = struct.unpack_from("<H", self.data, vtable + slot)[0] if slot < size else 0
        return self.at + offset if offset else 0

    def scalar(self, field: int, form: str) -> int:
        place = self.place(field)
        return int(struct.unpack_from(form, self.data, place)[0]) if place else 0

    def table(self, field: int) -> _Table:
        return _Table(self.data, self._follow(self.place(field)))

    def vector(self, field: int) -> tuple[int, int]:
        """Where a vector's elements begin, and how many there are."""
        place = self.place(field)
        if not place:
            return 0, 0
        start = self._follow(place)
        return start + 4, int(struct.unpack_from("<I", self.data, start)[0])

    def _follow(self, place: int) -> int:
        if not place:
            raise ValueError("a part that must be there is missing")
        return place + int(struct.unpack_from("<I", self.data, place)[0])
