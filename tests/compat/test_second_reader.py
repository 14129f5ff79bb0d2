"""A second reader, written from docs/spec alone and without a line of vectorlake, reads the fixtures as the first does.

Where it fails, either the specification or the code is wrong. It reads whole files and knows no filters.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import lance.file
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vortex
import xxhash
from pyroaring import BitMap

from vectorlake.formats.parquet_footer import metadata_of_plain_types

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED = sorted(FIXTURES.glob("*/expected/*.arrow"))
ROW_ID = 2147483540
SCALARS = {
    **{
        name: getattr(pa, name)()
        for name in ("string", "large_string", "binary", "large_binary", "date32", "date64")
    },
    **{
        f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": getattr(pa, f"float{bits}")() for bits in (16, 32, 64)},
    "bool": pa.bool_(),
}


def checksum(data: bytes) -> str:
    return "xxh3-64:" + xxhash.xxh3_64(data).digest().hex()


def arrow_type(kind: Any) -> pa.DataType:
    """Section "Types"."""
    if isinstance(kind, str):
        if kind in SCALARS:
            return SCALARS[kind]
        match = re.fullmatch(r"(\w+)\((.*)\)", kind)
        assert match, kind
        arguments = [int(part) if part.strip().isdigit() else part.strip() for part in match[2].split(",")]
        return {"fixed_size_binary": pa.binary}.get(match[1], getattr(pa, match[1], None))(*arguments)
    match kind["kind"]:
        case "struct":
            return pa.struct([(child["name"], arrow_type(child["type"])) for child in kind["fields"]])
        case "list":
            element = arrow_type(kind["element"]["type"])
            return pa.large_list(element) if kind.get("large") else pa.list_(element)
        case "fixed_list":
            return pa.list_(arrow_type(kind["element"]["type"]), kind["size"])
        case "map":
            return pa.map_(arrow_type(kind["key"]["type"]), arrow_type(kind["value"]["type"]))
        case "extension":
            return arrow_type(kind["storage"])
    raise AssertionError(kind)


def constant(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """Section "Literals", as far as the fixtures have defaults."""
    if pa.types.is_decimal(kind) and value is not None:
        value = Decimal(value)
    return pa.array([value] * length, kind)


def convert(array: pa.Array, stored: dict[str, Any], wanted: dict[str, Any]) -> pa.Array:
    """Section "The value of a column": widen scalars, match a struct's children by id."""
    target = arrow_type(wanted["type"])
    if not pa.types.is_struct(target):
        return array if array.type == target else array.cast(target)
    places = {child["id"]: index for index, child in enumerate(stored["type"]["fields"])}
    children = []
    for child in wanted["type"]["fields"]:
        if child["id"] in places:
            index = places[child["id"]]
            children.append(convert(array.field(index), stored["type"]["fields"][index], child))
        else:
            children.append(constant(child.get("default"), arrow_type(child["type"]), len(array)))
    return pa.StructArray.from_arrays(children, fields=list(target.fields), mask=array.is_null())


def schema_text(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(zlib.decompress(base64.urlsafe_b64decode(text))))


def data_file(path: Path, format_name: str) -> pa.Table:
    """docs/spec/data-files-v1.md: all rows of a file, under its logical schema where the file has one."""
    match format_name:
        case "parquet":
            # By Parquet's own types, which the cast to the logical schema ends: Arrow before 26 fails at nulls else.
            with path.open("rb") as file:
                table = pq.ParquetFile(file, metadata=metadata_of_plain_types(file)).read()
            text = pq.read_metadata(path).metadata.get(b"vectorlake:schema")
            return table.cast(schema_text(text.decode()) if text else pq.read_schema(path))
        case "arrow":
            table = pa.ipc.open_file(path).read_all()
        case "lance":
            table = lance.file.LanceFileReader(str(path)).read_all().to_table()
        case "vortex":
            table = vortex.open(str(path)).to_arrow().read_all()
            assert table["__vl_position"].to_pylist() == list(range(table.num_rows))
            hidden = [name for name in table.column_names if name.startswith("__vl_")]
            texts = [name.removeprefix("__vl_schema=") for name in hidden if name.startswith("__vl_schema=")]
            table = table.drop_columns(hidden)
            return table.cast(schema_text(texts[0])) if texts else table
    text = (table.schema.metadata or {}).get(b"vectorlake:schema")
    return table.cast(schema_text(text.decode())) if text else table


def deleted(root: Path, deletes: dict[str, Any] | None) -> list[int]:
    """Section "Deletion vectors"."""
    if deletes is None:
        return []
    block = (root / deletes["path"]).read_bytes()[deletes["offset"] :][: deletes["length"]]
    assert checksum(block) == deletes["checksum"]
    (bitmaps,) = struct.unpack_from("<Q", block)
    assert bitmaps == 1, "the fixtures have no fragment of more than 2**32 rows"
    (upper,) = struct.unpack_from("<I", block, 8)
    positions = [(upper << 32) + low for low in BitMap.deserialize(block[12:])]
    assert len(positions) == deletes["cardinality"]
    return positions


def fragment_rows(
    root: Path, schema: dict[str, Any], layouts: list[dict[str, Any]], row: dict[str, Any]
) -> pa.Table:
    count, constants = row["row_count"], json.loads(row["constants"] or "{}")
    columns: dict[str, pa.Array] = {}
    for field in [*schema["fields"], {"id": ROW_ID, "name": "_row_id", "type": "int64"}]:
        holders = [
            f for f in row["files"] if any(x["id"] == field["id"] for x in layouts[f["layout"]]["fields"])
        ]
        if holders:
            file = max(holders, key=lambda held: held["sequence"])
            path = root / file["path"]
            assert (path.stat().st_size, checksum(path.read_bytes())) == (file["size"], file["checksum"])
            assert file["row_stop"] - file["row_start"] == count
            stored = next(x for x in layouts[file["layout"]]["fields"] if x["id"] == field["id"])
            values = data_file(path, file["format"])[stored["name"]].slice(file["row_start"], count)
            columns[field["name"]] = convert(pa.concat_arrays(values.chunks), stored, field)
        elif field["id"] == ROW_ID:
            columns["_row_id"] = pa.array(np.arange(count) + row["first_row_id"], pa.int64())
        else:
            literal = constants.get(str(field["id"]), field.get("default"))
            columns[field["name"]] = constant(literal, arrow_type(field["type"]), count)
    return pa.table(columns).take(np.setdiff1d(np.arange(count), deleted(root, row["deletes"])))


def read_version(root: Path, version: int) -> pa.Table:
    snapshot = json.loads((root / f"metadata/v{version:020d}.json").read_bytes())
    assert snapshot["format_version"] == 1
    assert not snapshot.get("required_features")
    assert snapshot["version"] == version
    fragments: list[tuple[int, pa.Table]] = []
    for ref in snapshot.get("manifests", []):
        data = (root / ref["path"]).read_bytes()
        assert (len(data), checksum(data)) == (ref["size"], ref["checksum"])
        manifest = pa.ipc.open_file(data).read_all()
        header = json.loads(manifest.schema.metadata[b"vectorlake:manifest"])
        rows = manifest.to_pylist()
        assert len(rows) == ref["fragments"]
        assert sum(row["row_count"] for row in rows) == ref["rows"]
        fragments.extend(
            (row["fragment_id"], fragment_rows(root, snapshot["schema"], header["layouts"], row))
            for row in rows
        )
    assert snapshot["next_row_id"] >= sum(table.num_rows for _, table in fragments)
    return pa.concat_tables([table for _, table in sorted(fragments, key=lambda fragment: fragment[0])])


@pytest.mark.parametrize("path", EXPECTED, ids=["-".join((path.parts[-3], path.stem)) for path in EXPECTED])
def test_the_second_reader_agrees(path: Path) -> None:
    name, version = path.stem.rsplit(".", 1)
    found = read_version(path.parents[1] / name.replace(".", "/"), int(version))
    wanted = pa.ipc.open_file(path).read_all()
    assert [(f.name, f.type) for f in found.schema] == [(f.name, f.type) for f in wanted.schema]
    # As text, in which NaN equals itself and the zeros differ.
    assert repr(found.to_pylist()) == repr(wanted.to_pylist())
