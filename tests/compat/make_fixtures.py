"""Write the tables that every later release must read, and what is in them: run once a release, and commit the result.

    python tests/compat/make_fixtures.py

writes `tests/compat/fixtures/<release>/`, a lake with fixed ids and times:

- `formats/<scalar format>_<vector format>`: every pair of data-file formats, with deleted rows;
- `types/<format>`: a column of every kind of type;
- `history/evolved`: schema changes, backfills, deletes, a tag and a restore; every version is read;
- `arranged/balls`: rows sorted by cluster, with the bounding balls of their vectors;
- `indexed/items`: an index of every kind and code.

`expected/<table>.<version>.arrow` holds the rows, made from the same literals and not by reading the table. Fixtures of
a release are never changed: the script refuses to write over them.
"""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

import vectorlake as vl
from vectorlake.store.open import open_store
from vectorlake.testing.clocks import ManualClock, SequentialIds

FIXTURES: Final = Path(__file__).parent / "fixtures"
FORMATS: Final = ("parquet", "lance", "vortex", "arrow")
NAN: Final = float("nan")


def make(folder: Path) -> None:
    """Write all tables and what is expected of them."""
    lake = vl.Lake(
        open_store(folder), clock=ManualClock(1_760_000_000_000, step_ms=1000), new_id=SequentialIds()
    )
    (folder / "expected").mkdir(parents=True)
    for scalars in FORMATS:
        for vectors in FORMATS:
            make_pair(lake, folder, scalars, vectors)
        make_types(lake, folder, scalars)
    make_evolved(lake, folder)
    make_arranged(lake, folder)
    make_indexed(lake, folder)
    for hint in folder.rglob("latest"):
        assert hint.read_text().isdigit()


def expect(folder: Path, table: vl.Table, rows: pa.Table) -> None:
    """Say what a version of a table must read as."""
    path = folder / "expected" / f"{table.name}.{table.version}.arrow"
    with pa.ipc.new_file(path, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows)


def make_pair(lake: vl.Lake, folder: Path, scalars: str, vectors: str) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            ("title", vl.text()),
            ("price", pa.float64()),
            ("vec", vl.vector(4)),
            ("half", vl.vector(3, "f16")),
        ]
    )
    rows: dict[str, list[Any]] = {
        "id": [1, 2, 3, 4],
        "title": ["first", None, "Grüße, 世界", ""],
        "price": [1.5, NAN, None, -0.0],
        "vec": [[1.0, 0.0, 0.0, 0.0], [0.5, -2.25, 0.0, 1e-30], [0.0, 0.0, 0.0, 0.0], [3.0, 4.0, 5.0, 6.0]],
        "half": [[0.5, 1.0, -2.0], None, [0.0, 65504.0, 0.25], None],
    }
    table = lake.create_table(
        f"formats.{scalars}_{vectors}",
        pa.table(rows, schema=schema),
        primary_key=["id"],
        properties={"write.scalar-format": scalars, "write.vector-format": vectors, "owner": "tests"},
    )
    table.delete("id = 3")
    kept = [0, 1, 3]
    plain = pa.schema([field.with_type(pa.string()) if field.name == "title" else field for field in schema])
    expected = pa.table({name: [values[i] for i in kept] for name, values in rows.items()}, schema=plain)
    expect(folder, table, expected.append_column("_row_id", pa.array(kept, pa.int64())))


def make_types(lake: vl.Lake, folder: Path, format_name: str) -> None:
    day, moment = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12, 30, 15, 250_000)
    person = pa.struct([("name", pa.string()), ("born", pa.date32())])
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "bool": (pa.bool_(), [True, None]),
        "int8": (pa.int8(), [-128, None]),
        "uint16": (pa.uint16(), [65535, None]),
        "int32": (pa.int32(), [-(2**31), None]),
        "uint64": (pa.uint64(), [2**64 - 1, None]),
        "float16": (pa.float16(), [0.5, None]),
        "float32": (pa.float32(), [NAN, None]),
        "decimal": (pa.decimal128(20, 4), [Decimal("-12345.6789"), None]),
        "wide_decimal": (pa.decimal256(50, 2), [Decimal("1.25"), None]),
        "large_string": (pa.large_string(), ["x" * 100, None]),
        "binary": (pa.binary(), [b"\x00\xff", None]),
        "fixed": (pa.binary(4), [b"abcd", None]),
        "date32": (pa.date32(), [day, None]),
        "date64": (pa.date64(), [day, None]),
        "time_s": (pa.time32("s"), [dt.time(23, 59, 59), None]),
        "time_us": (pa.time64("us"), [dt.time(23, 59, 59, 999_999), None]),
        "ts_s": (pa.timestamp("s"), [moment.replace(microsecond=0), None]),
        "ts_ns_utc": (pa.timestamp("ns", "UTC"), [moment.replace(tzinfo=dt.UTC), None]),
        "duration": (pa.duration("us"), [dt.timedelta(days=3, microseconds=7), None]),
        "list": (pa.list_(pa.int32()), [[1, None, 3], None]),
        "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1), ("b", None)], None]),
        "struct": (person, [{"name": "Ada", "born": None}, None]),
        "uuid": (pa.uuid(), [b"0123456789abcdef", None]),
        "blob": (vl.blob(), [b"\x89PNG" * 20, None]),
        "geo": (vl.geo(), [b"\x01\x01\x00\x00\x00" + b"\x00" * 16, None]),
        "int8_vector": (vl.vector(3, "int8"), [[-128, 0, 127], None]),
        "binary_vector": (vl.vector(16, "binary"), [[255, 1], None]),
        "multivector": (vl.multivector(2), [[[1.0, 2.0], [3.0, 4.0]], []]),
    }
    storage = {
        name: kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        for name, (kind, _) in columns.items()
    }
    expected = pa.table({name: pa.array(values, storage[name]) for name, (_, values) in columns.items()})
    properties = {f"write.{group}-format": format_name for group in ("scalar", "vector", "blob")}
    table = lake.create_table(
        f"types.{format_name}",
        pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()}),
        properties=properties,
    )
    expect(folder, table, expected.append_column("_row_id", pa.array([0, 1], pa.int64())))


def make_evolved(lake: vl.Lake, folder: Path) -> None:
    ids = list(range(6))
    address = pa.struct([("city", pa.string())])
    table = lake.create_table(
        "history.evolved",
        pa.table(
            {
                "id": pa.array(ids, pa.int32()),
                "city": [f"c{i}" for i in ids],
                "old": ids,
                "address": pa.array([{"city": "x"}] * 6, address),
            }
        ),
        properties={"write.fragment-rows": "4"},
    )

    def seen(**columns: Any) -> None:
        schema = table.schema.remove_metadata()
        rows = pa.table({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})
        expect(folder, table, rows.append_column("_row_id", pa.array(row_ids, pa.int64())))

    row_ids = ids
    seen(id=ids, city=[f"c{i}" for i in ids], old=ids, address=[{"city": "x"}] * 6)
    table.add_column(
        "score", lambda batch: [i / 2 for i in batch["id"].to_pylist()], type=pa.float32(), inputs=["id"]
    )
    table.add_column("kind", type=pa.string(), default="plain")
    table.add_column("address.zip", type=pa.int32(), default=10115)
    table.rename_column("city", "town")
    table.drop_column("old")
    table.alter_column("id", type=pa.int64())
    table.delete("id IN (1, 4)")
    row_ids = [0, 2, 3, 5]
    home = {"city": "x", "zip": 10115}
    towns, scores = [f"c{i}" for i in row_ids], [i / 2 for i in row_ids]
    seen(id=row_ids, town=towns, address=[home] * 4, score=scores, kind=["plain"] * 4)
    table.tag("before-append")
    table.append([{"id": 2**40, "town": "late", "kind": None, "address": {"city": None, "zip": 7}}])
    row_ids = [*row_ids, 6]
    late = {"city": None, "zip": 7}
    wide, towns = [0, 2, 3, 5, 2**40], [*towns, "late"]
    seen(id=wide, town=towns, address=[*[home] * 4, late], score=[*scores, None], kind=[*["plain"] * 4, None])
    table.backfill_column("score", lambda batch: [99.0] * batch.num_rows, inputs=["id"])
    table.reorder_columns(["town", "id"])
    seen(town=towns, id=wide, address=[*[home] * 4, late], score=[*scores, 99.0], kind=[*["plain"] * 4, None])
    table.overwrite([{"id": 1, "town": "only"}])
    row_ids = [7]
    seen(town=["only"], id=[1], address=[None], score=[None], kind=["plain"])
    table.restore("before-append")
    row_ids = [0, 2, 3, 5]
    seen(id=row_ids, town=towns[:4], address=[home] * 4, score=scores, kind=["plain"] * 4)


def make_arranged(lake: vl.Lake, folder: Path) -> None:
    """Five clusters, dealt out row by row and then sorted; the vectors of each are within 1 of its corner."""
    ids = list(range(1200))
    vectors = [[100.0 * (i % 5 == axis) + (i * (axis + 3) % 16) / 32 for axis in range(4)] for i in ids]
    schema = pa.schema([("id", pa.int32()), ("cluster", pa.int8()), ("vec", vl.vector(4))])
    rows = pa.table({"id": ids, "cluster": [i % 5 for i in ids], "vec": vectors}, schema=schema)
    table = lake.create_table("arranged.balls", rows)
    table.compact(sort_by=["cluster", "id"])
    table.delete("id = 7")
    kept = sorted((i for i in ids if i != 7), key=lambda i: (i % 5, i))
    expect(folder, table, rows.take(kept).append_column("_row_id", pa.array(kept, pa.int64())))


INDEXES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "flat": ("vec", "flat", {"metric": "l2"}),
    "rabitq": ("vec", "ivf", {"metric": "cosine", "nlist": 6, "bits": 3}),
    "pq": ("vec", "ivf", {"metric": "l2", "nlist": 6, "codes": "pq"}),
    "int8": ("vec", "ivf", {"metric": "dot", "nlist": 6, "codes": "int8"}),
    "as_stored": ("vec", "ivf", {"metric": "l2", "nlist": 6, "codes": "flat"}),
    "graph": ("vec", "graph", {"metric": "cosine"}),
    "bits": ("bits", "ivf", {"metric": "hamming", "nlist": 4}),
    "tokens": ("tokens", "tokens", {"metric": "cosine"}),
}
"""Name, and then column, kind and options."""


def make_indexed(lake: vl.Lake, folder: Path) -> None:
    """An index of every kind and code, and rows that were written after them."""
    rng = np.random.default_rng(23)
    count = 300
    # Rows of some clusters are close together and of others not: a graph's searches end early there.
    spread = np.repeat([0.05, 0.2, 0.6, 1.5], count // 4)[:, None]
    vectors = rng.normal(size=(20, 16))[rng.integers(0, 20, count)] + spread * rng.normal(size=(count, 16))
    tokens = [vectors[i : i + 1 + i % 3].astype("f4").tolist() for i in range(count)]
    fields = [("id", pa.int32()), ("vec", vl.vector(16)), ("bits", vl.vector(4, "u8"))]
    schema = pa.schema([*fields, ("tokens", vl.multivector(16))])
    columns = {
        "id": list(range(count)),
        "vec": vectors.astype("f4").tolist(),
        "bits": rng.integers(0, 256, (count, 4), np.uint8).tolist(),
        "tokens": tokens,
    }
    rows = pa.table(columns, schema=schema)
    table = lake.create_table("indexed.items", rows.slice(0, count - 5))
    for name, (column, kind, options) in INDEXES.items():
        table.create_index(column, kind, name=name, **options)
    table.delete("id in (3, 77)")
    table.append(rows.slice(count - 5))
    kept = [i for i in range(count) if i not in (3, 77)]
    expect(folder, table, rows.take(kept).append_column("_row_id", pa.array(kept, pa.int64())))


def main() -> int:
    """Write the fixtures of this release."""
    folder = FIXTURES / vl.__version__
    if folder.exists():
        print(f"{folder} exists: fixtures of a release are never changed", file=sys.stderr)
        return 1
    make(folder)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
