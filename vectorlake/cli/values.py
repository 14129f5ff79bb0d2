"""Arrow values as JSON for programs, and as short text for people."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

NULL: Final = "·"
"""How a null is shown."""
_CELL: Final = 60
"""Characters of a text that a table shows."""


def to_json(value: Any) -> str:
    """One value as JSON: times in ISO 8601, bytes in base64, decimals as strings, NaN and infinity null."""
    import msgspec

    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()  # numpy's scalars, float16 among them
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch as mappings of Python values that `to_json` takes."""
    names = batch.schema.names
    columns = [_pylist(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _pylist(array: pa.Array) -> list[Any]:
    import pyarrow as pa

    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    kind = array.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime has no nanoseconds.
        return [
            None if text is None else text.replace(" ", "T", 1)
            for text in array.cast(pa.string()).to_pylist()
        ]
    if pa.types.is_time64(kind) and kind.unit == "ns":
        found: list[Any] = array.cast(pa.string()).to_pylist()
        return found
    if pa.types.is_duration(kind) and kind.unit == "ns":
        array = array.cast(pa.duration("us"), safe=False)
    values: list[Any] = array.to_pylist()
    return values


def short(value: Any) -> str:
    """One value for a table's cell: on one line, vectors and long texts abbreviated."""
    match value:
        case None:
            return NULL
        case bool():
            return "true" if value else "false"
        case float():
            return _number(value)
        case str():
            return _cut(" ".join(value.split()))
        case bytes():
            head = base64.b16encode(value[:8]).decode().lower()
            return f"{head}{'…' if len(value) > 8 else ''} ({len(value):,} bytes)"
        case dt.datetime():
            return moment(value)
        case list():
            return _list(value)
        case Mapping():
            return _cut("{" + ", ".join(f"{key}: {short(child)}" for key, child in value.items()) + "}")
    return _number(float(value)) if type(value).__name__.startswith("float") else _cut(str(value))


def _list(values: list[Any]) -> str:
    if values and all(isinstance(value, list) for value in values):
        return f"[{_list(values[0])}, …] × {len(values)}" if len(values) > 1 else f"[{_list(values[0])}]"
    if len(values) > 4 and not isinstance(values[0], str | Mapping | tuple):
        return f"[{', '.join(short(value) for value in values[:2])}, …] ({len(values)})"
    return _cut("[" + ", ".join(short(value) for value in values) + "]")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:.6g}"
    return text if float(text) == value or abs(value) < 1e6 else repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def moment(time: dt.datetime) -> str:
    """A time to the second, in UTC where it has a zone."""
    if time.tzinfo is None:
        return time.isoformat(" ", "seconds")
    return time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def from_ms(timestamp_ms: int) -> dt.datetime:
    """A commit's time."""
    return dt.datetime.fromtimestamp(timestamp_ms / 1000, dt.UTC)


def size(count: int) -> str:
    """A number of bytes, to three digits."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{count:,} {unit}" if unit == "bytes" else f"{amount:.3g} {unit}"
        amount /= 1000
    raise AssertionError
