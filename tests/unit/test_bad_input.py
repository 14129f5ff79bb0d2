"""Bad input gets an error that says what, where and what to try, before anything is written."""

from __future__ import annotations

import datetime as dt
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.testing.s3 import S3Server

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("name", pa.string()),
        ("price", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("vec", vl.vector(3)),
    ]
)
ROWS = [
    {"id": i, "name": f"n{i}", "price": float(i), "tags": ["a"], "vec": [float(i), 0.0, 1.0]}
    for i in range(5)
]


@pytest.fixture
def lake(tmp_path: Path) -> vl.Lake:
    return vl.connect(tmp_path / "lake")


@pytest.fixture
def table(lake: vl.Lake) -> vl.Table:
    formats = {"write.scalar-format": "vortex", "write.vector-format": "lance"}
    return lake.create_table("ns.items", pa.Table.from_pylist(ROWS, schema=SCHEMA), properties=formats)


def files_of(table: vl.Table) -> set[str]:
    return {info.path for info in table.store.list()} | {info.path for info in table.store.leftovers()}


def batches() -> Any:
    yield pa.RecordBatch.from_pydict({"id": [1, 2]})
    yield pa.RecordBatch.from_arrays([pa.array([3, None])], names=["id"])


Action = Callable[[vl.Table], object]

CASES: dict[str, tuple[Action, type[Exception], str]] = {
    "unknown column": (lambda t: t.append({"id": [1], "prize": [2.0]}), vl.InvalidInputError, "'prize'.*did you mean 'price'"),
    "missing non-null column": (lambda t: t.append({"name": ["x"]}), vl.InvalidInputError, "'id' must not be null"),
    "null in a non-null column": (lambda t: t.append({"id": [1, None]}), vl.InvalidInputError, "'id'.*row 1"),
    "null in a later batch": (lambda t: t.append(batches()), vl.InvalidInputError, "'id'.*row 3"),
    "type mismatch": (lambda t: t.append({"id": ["x"]}), vl.InvalidInputError, "'id' is int64, the data has string"),
    "text for numbers": (lambda t: t.append({"id": [1], "price": ["cheap"]}), vl.InvalidInputError, "'price' is float64"),
    "float that is no integer": (lambda t: t.append({"id": [1.0, 2.5]}), vl.InvalidInputError, "'id'.*row 1.*2.5"),
    "integer out of range": (lambda t: t.append({"id": pa.array([2**63], pa.uint64())}), vl.InvalidInputError, "'id'.*row 0"),
    "an integer beyond 64 bits": (lambda t: t.append({"id": [2**70]}), vl.InvalidInputError, "don't make a table"),
    "wrong dimension": (
        lambda t: t.append({"id": [1], "vec": np.zeros((1, 4), "f4")}), vl.InvalidInputError, r"vector\(3, f32\), the data has"),
    "ragged vectors": (
        lambda t: t.append({"id": [1, 2], "vec": [[1.0, 2.0, 3.0], [1.0]]}), vl.InvalidInputError, "row 1 has 1 numbers"),
    "vector with a null number": (
        lambda t: t.append({"id": [1], "vec": [[1.0, None, 2.0]]}), vl.InvalidInputError, "row 0 holds a null number"),
    "NaN in a vector": (
        lambda t: t.append({"id": [1, 2], "vec": [[1.0, 2.0, 3.0], [1.0, math.nan, 2.0]]}), vl.InvalidInputError, "row 1 holds NaN"),
    "infinite vector": (
        lambda t: t.append({"id": [1], "vec": [[math.inf, 0.0, 0.0]]}), vl.InvalidInputError, "row 0 holds NaN or infinity"),
    "columns of different lengths": (lambda t: t.append({"id": [1, 2], "name": ["x"]}), vl.InvalidInputError, "don't make a table"),
    "not a table": (lambda t: t.append(42), vl.InvalidInputError, "can't read rows from int"),
    "a list of other things": (lambda t: t.append([1, 2]), vl.InvalidInputError, "must hold mappings"),
    "a column twice": (
        lambda t: t.append(pa.table([[1], [2]], names=["id", "id"])), vl.InvalidInputError, "'id' occurs twice"),
    "filter on an unknown column": (lambda t: t.scan(filter="prce > 3"), vl.InvalidInputError, "prce.*price"),
    "filter that does not parse": (lambda t: t.scan(filter="price >"), vl.InvalidInputError, r"\^"),
    "filter of other types": (lambda t: t.count("name > 3"), vl.InvalidInputError, "name"),
    "filter that is no condition": (lambda t: t.count("price + 1"), vl.InvalidInputError, "price"),
    "unknown column in scan": (lambda t: t.scan(columns=["prise"]), vl.NotFoundError, "'prise'.*did you mean 'price'"),
    "columns as a string": (lambda t: t.scan(columns="id"), vl.InvalidInputError, r"\['id'\]"),
    "column twice in scan": (lambda t: t.scan(columns=["id", "id"]), vl.InvalidInputError, "twice"),
    "negative limit": (lambda t: t.scan(limit=-1), vl.InvalidInputError, "limit"),
    "batch size of zero": (lambda t: t.scan(batch_size=0), vl.InvalidInputError, "batch_size"),
    "unknown row id": (lambda t: t.take([3, 99]), vl.NotFoundError, "row id 99"),
    "row ids that are no integers": (lambda t: t.take([1.5]), vl.InvalidInputError, "integers"),
    "version that does not exist": (lambda t: t.at(7), vl.NotFoundError, "no version 7; it has versions 1 to 1"),
    "version zero": (lambda t: t.at(0), vl.NotFoundError, "no version 0"),
    "unknown tag": (lambda t: t.at("v1"), vl.NotFoundError, "no tag or branch 'v1'"),
    "a version of another type": (lambda t: t.at(1.5), vl.InvalidInputError, "number, a tag, a branch or a datetime"),  # type: ignore[arg-type]
    "a tag that is a number": (lambda t: t.tag("12"), vl.InvalidInputError, "can't be a tag"),
    "a tag that is a path": (lambda t: t.tag("../x"), vl.InvalidInputError, "can't be a tag"),
    "restore of a version that does not exist": (lambda t: t.restore(9), vl.NotFoundError, "no version 9"),
    "delete without a filter": (lambda t: t.delete(None), vl.InvalidInputError, "needs a filter"),
    "knn of another dimension": (lambda t: t.knn([1.0, 2.0]), vl.InvalidInputError, r"dimension 2.*vector\(3, f32\)"),
    "knn of ragged queries": (lambda t: t.knn([[1.0, 2.0, 3.0], [1.0]]), vl.InvalidInputError, "ragged"),
    "knn with NaN": (lambda t: t.knn([[0.0] * 3, [math.nan, 0.0, 0.0]]), vl.InvalidInputError, "query 1"),
    "knn with k = 0": (lambda t: t.knn([1.0, 2.0, 3.0], k=0), vl.InvalidInputError, "k must be"),
    "knn with an unknown metric": (lambda t: t.knn([1.0] * 3, metric="cosin"), vl.InvalidInputError, "cosine"),
    "knn on a scalar column": (lambda t: t.knn([1.0] * 3, "price"), vl.InvalidInputError, "not a vector"),
    "knn on an unknown column": (lambda t: t.knn([1.0] * 3, "vek"), vl.NotFoundError, "did you mean 'vec'"),
    "knn of words": (lambda t: t.knn(["a", "b", "c"]), vl.InvalidInputError, "numbers|vectors"),
    "knn without an index": (lambda t: t.knn([1.0] * 3, mode="index"), vl.InvalidInputError, "create_index"),
    "knn in an unknown mode": (lambda t: t.knn([1.0] * 3, mode="fast"), vl.InvalidInputError, "mode"),
    "adding a column that exists": (lambda t: t.add_column("price", type=pa.int8()), vl.AlreadyExistsError, "'price' exists"),
    "adding a column without a type": (lambda t: t.add_column("x"), vl.InvalidInputError, "needs a type"),
    "adding a non-null column without values": (
        lambda t: t.add_column("x", type=pa.int8(), nullable=False), vl.InvalidInputError, "without a default"),
    "a default that does not fit": (lambda t: t.add_column("x", type=pa.int8(), default=300), vl.InvalidInputError, "300"),
    "a reserved name": (lambda t: t.add_column("_row_id", type=pa.int8()), vl.InvalidInputError, "reserved"),
    "a function that returns too few": (
        lambda t: t.add_column("x", lambda b: [1], type=pa.int64()), vl.InvalidInputError, "row ids 0 to 4.*given 5 rows and returned 1"),
    "a function that returns another type": (
        lambda t: t.add_column("x", lambda b: ["a"] * b.num_rows, type=pa.int64()), vl.InvalidInputError, "'x'.*row ids 0 to 4"),
    "a function that returns another dimension": (
        lambda t: t.add_column("x", lambda b: np.zeros((b.num_rows, 2)), type=vl.vector(3)), vl.InvalidInputError, r"vector\(3, f32\)"),
    "an expression on an unknown column": (lambda t: t.add_column("x", "prce * 2"), vl.InvalidInputError, "price"),
    "dropping an unknown column": (lambda t: t.drop_column("nme"), vl.NotFoundError, "did you mean 'name'"),
    "renaming onto another": (lambda t: t.rename_column("name", "price"), vl.AlreadyExistsError, "'price' exists"),
    "narrowing": (lambda t: t.alter_column("id", type=pa.int32()), vl.InvalidInputError, "only widening"),
    "forbidding nulls": (lambda t: t.alter_column("name", nullable=False), vl.InvalidInputError, "can't forbid nulls"),
    "altering nothing": (lambda t: t.alter_column("name"), vl.InvalidInputError, "what to alter"),
    "an unknown property": (lambda t: t.set_properties({"write.scalar-fromat": "lance"}), vl.InvalidInputError, "scalar-format"),
    "a property's bad value": (lambda t: t.set_properties({"write.scalar-format": "orc"}), vl.InvalidInputError, "orc"),
    "writing to a pinned version": (lambda t: t.at(1).append(ROWS), vl.UnsupportedError, "pinned to version 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_and_nothing_is_written(case: str, table: vl.Table) -> None:
    action, error, message = CASES[case]
    before = files_of(table)
    with pytest.raises(error, match=f"(?s){message}"):
        action(table)
    assert files_of(table) == before
    assert table.refresh().version == 1


LAKE_CASES: dict[str, tuple[Callable[[vl.Lake], object], type[Exception], str]] = {
    "table exists": (lambda lake: lake.create_table("ns.items", SCHEMA), vl.AlreadyExistsError, "'ns.items' exists"),
    "table not found": (lambda lake: lake.table("ns.itms"), vl.NotFoundError, "'ns.itms'.*did you mean 'ns.items'"),
    "a name that is a path": (lambda lake: lake.create_table("../x", SCHEMA), vl.InvalidInputError, "can't be a table's name"),
    "an empty name": (lambda lake: lake.table(""), vl.InvalidInputError, "can't be a table's name"),
    "no columns": (lambda lake: lake.create_table("x", pa.schema([])), vl.InvalidInputError, "at least one column"),
    "a column without a type": (
        lambda lake: lake.create_table("x", pa.schema([("a", pa.null())])), vl.UnsupportedError, "'a' has Arrow type null"),
    "columns of one name": (
        lambda lake: lake.create_table("x", pa.schema([("a", pa.int8()), ("a", pa.int8())])), vl.InvalidInputError, "'a' occurs twice"),
    "a union": (
        lambda lake: lake.create_table("x", pa.schema([("u", pa.sparse_union([pa.field("a", pa.int8())]))])),
        vl.UnsupportedError, "'u'"),
    "an unknown key column": (
        lambda lake: lake.create_table("x", SCHEMA, primary_key=["idd"]), vl.NotFoundError, "did you mean 'id'"),
    "a vector of no dimension": (lambda lake: vl.vector(0), vl.InvalidInputError, "positive"),
    "a vector of unknown numbers": (lambda lake: vl.vector(3, "f8"), vl.InvalidInputError, "f8"),
    "a binary vector of odd bits": (lambda lake: vl.vector(12, "binary"), vl.InvalidInputError, "multiple of 8"),
    "bad rows on creation": (
        lambda lake: lake.create_table("x", [{"v": [1.0]}, {"v": "a"}]), vl.InvalidInputError, "don't make a table"),
    "a scheme that no store has": (lambda lake: vl.connect("ftp://x/y"), vl.UnsupportedError, "ftp"),
}  # fmt: skip


@pytest.mark.parametrize("case", LAKE_CASES)
def test_bad_lake_input_is_refused_and_nothing_is_written(case: str, lake: vl.Lake, table: vl.Table) -> None:
    action, error, message = LAKE_CASES[case]
    before = {info.path for info in lake.store.list()}
    with pytest.raises(error, match=f"(?s){message}"):
        action(lake)
    assert {info.path for info in lake.store.list()} == before
    assert lake.tables() == ["ns.items"]


def reopened(lake: vl.Lake) -> vl.Table:
    """As another process sees it, with nothing remembered."""
    return vl.connect(lake.uri).table("ns.items")


def damage(path: Path, *, flip: int | None = None, cut: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    if flip is not None:
        data[flip] ^= 0xFF
    path.write_bytes(data[:cut] if cut is not None else data)


def only(table: vl.Table, pattern: str) -> Path:
    folder = table.store.local_path("")
    assert folder is not None
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.parametrize("how", [{"cut": 40}, {"flip": 50}])
def test_damaged_manifest_is_named(lake: vl.Lake, table: vl.Table, how: dict[str, int]) -> None:
    manifest = only(table, "metadata/m-*.arrow")
    damage(manifest, **how)
    with pytest.raises(vl.CorruptDataError, match=manifest.name):
        reopened(lake).to_arrow()
    assert [finding.path for finding in reopened(lake).verify()] == [f"metadata/{manifest.name}"]


@pytest.mark.parametrize("suffix", ["data/*.lance", "data/*.vortex"])
def test_truncated_removed_and_flipped_data_files_are_named(
    lake: vl.Lake, table: vl.Table, suffix: str
) -> None:
    path = only(table, suffix)
    whole = path.read_bytes()
    damage(path, cut=len(whole) - 10)
    with pytest.raises(vl.CorruptDataError, match=path.name):
        reopened(lake).to_arrow()
    assert [finding.path for finding in reopened(lake).verify()] == [f"data/{path.name}"]
    path.write_bytes(whole)
    damage(path, flip=len(whole) // 2)
    assert [finding.path for finding in reopened(lake).verify()] == [f"data/{path.name}"]
    path.unlink()
    with pytest.raises(vl.CorruptDataError, match=path.name):
        reopened(lake).to_arrow()
    assert [finding.path for finding in reopened(lake).verify()] == [f"data/{path.name}"]
    path.write_bytes(whole)
    assert reopened(lake).verify() == []


def test_flipped_bytes_are_found_on_opening_where_that_is_asked_for(lake: vl.Lake, table: vl.Table) -> None:
    path = only(table, "data/*.lance")
    damage(path, flip=100)
    with pytest.raises(vl.CorruptDataError, match=path.name):
        vl.connect(lake.uri, integrity="checksum").table("ns.items").to_arrow()
    with pytest.raises(vl.InvalidInputError, match="'length' or 'checksum'"):
        vl.connect(lake.uri, integrity="sometimes")


def test_missing_manifest_and_damaged_deletes_are_named(lake: vl.Lake, table: vl.Table) -> None:
    table.delete("id = 2")
    deletes = only(table, "deletes/*.dv")
    damage(deletes, flip=3)
    with pytest.raises(vl.CorruptDataError, match=deletes.name):
        reopened(lake).to_arrow()
    assert [finding.path for finding in table.verify()] == [f"deletes/{deletes.name}"]
    deletes.unlink()
    with pytest.raises(vl.CorruptDataError, match=deletes.name):
        reopened(lake).to_arrow()
    for manifest in Path(deletes.parent.parent, "metadata").glob("m-*.arrow"):
        manifest.unlink()
    with pytest.raises(vl.CorruptDataError, match=r"m-\w+.arrow is missing"):
        reopened(lake).to_arrow()


def test_a_lying_hint_costs_nothing_but_time(lake: vl.Lake, table: vl.Table) -> None:
    for version in range(25):
        table.set_properties({"n": str(version)})
    latest = only(table, "metadata/latest")
    for hint in ("", "x", "1", "999", "0"):
        latest.write_text(hint)
        assert lake.table("ns.items").version == 26
    os.remove(latest)
    assert lake.table("ns.items").version == 26


def test_interrupted_append_commits_nothing_and_leaves_collectable_orphans(lake: vl.Lake) -> None:
    table = lake.create_table("t", SCHEMA, properties={"write.fragment-rows": "2"})

    def interrupted() -> Any:
        yield pa.RecordBatch.from_pylist(ROWS[:4], schema=SCHEMA)
        raise KeyboardInterrupt

    before = files_of(table)
    with pytest.raises(KeyboardInterrupt):
        table.append(interrupted())
    assert table.refresh().version == 1
    assert table.count() == 0
    left = files_of(table) - before
    assert all(path.startswith("data/") for path in left)
    assert set(table.collect_orphans(older_than=dt.timedelta(seconds=-5))) == left
    assert files_of(table) == before
    table.append(ROWS)
    assert table.count() == 5
    assert table.collect_orphans(older_than=dt.timedelta(seconds=-5)) == []


def test_a_function_that_fails_leaves_no_column(table: vl.Table) -> None:
    def fails(batch: pa.RecordBatch) -> Any:
        raise RuntimeError("model ran out of memory")

    before = files_of(table)
    with pytest.raises(RuntimeError, match="out of memory"):
        table.add_column("x", fails, type=pa.int64())
    assert files_of(table) == before
    assert "x" not in table.refresh().schema.names


def test_full_disk_is_named_and_the_table_stays_whole(mount: Callable[..., Path]) -> None:
    folder = mount("size=3m")
    table = vl.connect(folder / "lake").create_table(
        "t", pa.schema([("id", pa.int64()), ("vec", vl.vector(256))])
    )
    rng = np.random.default_rng(0)
    small = {"id": np.arange(100), "vec": rng.standard_normal((100, 256)).astype("f4")}
    table.append(small)
    before = files_of(table)
    large = {"id": np.arange(5000), "vec": rng.standard_normal((5000, 256)).astype("f4")}
    for attempt in (lambda: table.append(large), lambda: table.overwrite(large)):
        with pytest.raises(vl.StorageError, match=r"(?i)full|space"):
            attempt()
        assert files_of(table) == before
    with pytest.raises(vl.StorageError, match=r"(?i)full|space"):
        table.add_column("more", lambda b: np.zeros((b.num_rows, 8192), "f4"), type=vl.vector(8192))
    assert files_of(table) == before
    assert table.refresh().count() == 100
    table.append(small)
    assert table.count() == 200


def test_read_only_folder_is_named_and_can_still_be_read(mount: Callable[..., Path]) -> None:
    folder = mount("size=3m")
    vl.connect(folder / "lake").create_table("t", pa.Table.from_pylist(ROWS, schema=SCHEMA))
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    table = vl.connect(folder / "lake").table("t")
    for attempt in (
        lambda: table.append(ROWS),
        lambda: table.delete("id = 1"),
        lambda: table.tag("v"),
        lambda: table.add_column("x", type=pa.int8()),
        lambda: vl.connect(folder / "lake").create_table("u", SCHEMA),
    ):
        with pytest.raises(vl.StorageError, match=r"(?i)read-only"):
            attempt()
    assert table.refresh().version == 1
    assert table.count("price > 1") == 3


@pytest.mark.s3
def test_s3_that_refuses_is_named(s3: S3Server) -> None:
    missing = vl.connect("s3://no-such-bucket/lake", storage_options=s3.storage_options)
    with pytest.raises((vl.StorageError, vl.NotFoundError), match="no-such-bucket"):
        missing.create_table("t", SCHEMA)
    with pytest.raises((vl.StorageError, vl.NotFoundError), match="no-such-bucket"):
        missing.table("t")
    wrong = vl.connect(
        s3.fresh_uri(), storage_options={**s3.storage_options, "aws_secret_access_key": "wrong"}
    )
    with pytest.raises(vl.StorageError, match=r"(?i)denied|key|permission|signature"):
        wrong.create_table("t", SCHEMA)


def test_null_vectors_alone_are_taken_as_lists_without_a_single_number(lake: vl.Lake) -> None:
    """pyarrow's cast crashes the process where a stream brings no buffer for the numbers, as Spark's does."""
    table = lake.create_table("nulls", SCHEMA)
    batch = pa.record_batch({"id": [1, 2], "vec": pa.array([None, None], pa.list_(pa.float32()))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    table.append(pa.ipc.open_stream(sink.getvalue()))
    assert table.to_arrow()["vec"].to_pylist() == [None, None]
