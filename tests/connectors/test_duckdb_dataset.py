"""`Table.to_dataset()`: a pinned version through pyarrow's Dataset interface, for engines and for pyarrow's own users."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import vectorlake as vl
from vectorlake.errors import NotFoundError, UnsupportedError

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def table() -> vl.Table:
    table = vl.connect("memory://").create_table(
        "t",
        pa.schema({"id": pa.int64(), "f": pa.float64(), "u": pa.uuid(), "vec": vl.vector(2)}),
    )
    for start in (0, 10):
        ids = np.arange(start, start + 10)
        table.append(
            pa.table(
                {
                    "id": ids,
                    "f": pa.array([float("nan") if i % 5 == 0 else i / 2 for i in ids]),
                    "u": pa.array([bytes([i] * 16) for i in ids], pa.binary(16)),
                    "vec": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(ids, 2).astype("f4")), 2),
                }
            )
        )
    return table


def test_pyarrows_own_methods(table: vl.Table) -> None:
    dataset = table.to_dataset()
    assert dataset.schema.types == [pa.int64(), pa.float64(), pa.binary(16), pa.list_(pa.float32(), 2)]
    over = pc.field("id") >= 15
    assert dataset.count_rows() == 20
    assert dataset.count_rows(filter=over) == 5
    assert dataset.to_table(["id"], filter=over)["id"].to_pylist() == [15, 16, 17, 18, 19]
    assert dataset.filter(over).filter(pc.field("id") < 17).to_table(["id"])["id"].to_pylist() == [15, 16]
    assert dataset.head(3, ["id"])["id"].to_pylist() == [0, 1, 2]
    assert dataset.take([3, 1], ["id"])["id"].to_pylist() == [3, 1]
    assert dataset.sort_by([("id", "descending")]).head(1)["id"].to_pylist() == [19]
    assert [batch.num_rows for batch in dataset.scanner(["id"], batch_size=4).to_batches()] == [
        4,
        4,
        2,
        4,
        4,
        2,
    ]
    assert sum(batch.num_rows for batch in dataset.scanner(columns=[]).to_batches()) == 20
    (fragment,) = dataset.get_fragments()
    assert fragment.scanner(columns=["_row_id", "u"], filter=over).to_table().num_rows == 5
    assert pa.table(dataset.scanner(["id"])).num_rows == 20


def test_it_stays_at_its_version(table: vl.Table) -> None:
    dataset = table.to_dataset()
    table.delete("id < 15")
    assert dataset.count_rows() == 20
    assert table.to_dataset().count_rows() == 5


def test_what_is_not_offered_says_so(table: vl.Table) -> None:
    dataset = table.to_dataset()
    for refused in (
        lambda: dataset.join(dataset, "id"),
        lambda: dataset.replace_schema(dataset.schema),
        lambda: pickle.dumps(dataset),
        lambda: dataset.scanner({"x": pc.field("id")}),
    ):
        with pytest.raises(UnsupportedError):
            refused()
    with pytest.raises(NotFoundError, match="did you mean 'id'"):
        dataset.to_table(["idd"])


@pytest.mark.parametrize(
    "condition", ["id > 12", "id IN (1, 2)", "f > 7", "f <> 8", "NOT (f > 7)", "f IS NULL", "u IS NOT NULL"]
)
def test_duckdb_reads_it_without_attaching(table: vl.Table, condition: str) -> None:
    with duckdb.connect() as con:
        con.register("items", table.to_dataset())
        con.execute("CREATE TABLE native AS SELECT * FROM items")
        lake, native = (
            con.execute(f"SELECT id FROM {t} WHERE {condition} ORDER BY 1").fetchall()
            for t in ("items", "native")
        )
        assert lake == native
        assert con.execute("SELECT count(*) FROM items").fetchall() == [(20,)]
