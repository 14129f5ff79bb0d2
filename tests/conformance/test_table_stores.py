"""A table does the same on every store: local disk, memory, and a real S3 server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.testing.s3 import S3Server

STORES = ["local", "memory", pytest.param("s3", marks=pytest.mark.s3)]
FORMATS = ["parquet", "lance", "vortex", "arrow"]


@pytest.fixture(params=STORES)
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> vl.Lake:
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        return vl.connect(server.fresh_uri(), storage_options=server.storage_options)
    return vl.connect(tmp_path if request.param == "local" else "memory://")


@pytest.mark.parametrize("kind", FORMATS)
def test_life_of_a_table(lake: vl.Lake, kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 8)).astype(np.float32)
    data = pa.table(
        {
            "id": np.arange(200),
            "name": [f"n{i % 7}" for i in range(200)],
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
            "blob": pa.array([bytes([i]) * 50 for i in range(200)], pa.large_binary()),
        }
    )
    properties = {"write.scalar-format": kind, "write.vector-format": kind, "write.fragment-rows": "80"}
    table = lake.create_table("ns.items", data, properties=properties)
    assert {file.format for fragment in table.view.fragments() for file in fragment.files} == {kind}
    table.append(data.slice(0, 10))
    table.delete("id < 5")
    table.add_column("twice", "id * 2")
    again = lake.table("ns.items")
    assert again.count() == 200
    assert again.scan(filter="name = 'n3' AND id > 100", columns=["twice"]).to_arrow()[
        "twice"
    ].to_pylist() == [2 * i for i in range(101, 200) if i % 7 == 3]
    assert again.take([199, 7], columns=["blob"])["blob"].to_pylist() == [bytes([199]) * 50, bytes([7]) * 50]
    found = again.knn(vectors[150], k=1, columns=["id"])
    assert (found["id"][0].as_py(), found["distance"][0].as_py()) == (150, 0.0)
    assert again.at(1).to_arrow().equals(data)
    assert again.verify() == []
    again.tag("v")
    assert lake.tables() == ["ns.items"]
    lake.drop_table("ns.items")
    assert list(lake.store.list()) == []
