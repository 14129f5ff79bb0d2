"""A short session of one engine, as its users have it: a table is made, read with a filter, written and searched.

    python session.py EXTRA      (or core, where there is none)

Runs where vectorlake is installed with that extra and nothing else; `check.py` sees to that. Ends with an error if anything is not
as it should be.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

import vectorlake as vl

COUNT = 40
VECTORS = np.stack([np.arange(COUNT), np.zeros(COUNT)], axis=1).astype("f4")
ROWS = pa.table(
    {
        "id": np.arange(COUNT),
        "name": [f"item {i}" for i in range(COUNT)],
        "vec": pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 2),
    }
)
MORE = pa.table(
    {
        "id": [COUNT],
        "name": [f"item {COUNT}"],
        "vec": pa.array([[float(COUNT), 0.0]], pa.list_(pa.float32(), 2)),
    }
)
CONNECTORS = {
    f"vectorlake_{extra}": extra
    for extra in ("daft", "datafusion", "duckdb", "iceberg", "polars", "ray", "spark", "torch")
}
QUERY = [7.2, 0.0]
NEAREST = [7, 8, 6]


def plain(lake: vl.Lake) -> None:
    items = lake.create_table("ns.items", ROWS, primary_key=["id"])
    items.append(MORE)
    assert items.scan(["name"], "id < 2").to_arrow()["name"].to_pylist() == ["item 0", "item 1"]
    assert items.knn(QUERY, k=3, columns=["id"])["id"].to_pylist() == NEAREST
    items.create_index("vec", "ivf")
    assert items.knn(QUERY, k=3, mode="index", columns=["id"])["id"].to_pylist() == NEAREST


def core(lake: vl.Lake) -> None:
    """Without any extra: all of the library, and connectors that say what they lack."""
    plain(lake)
    for connector, extra in CONNECTORS.items():
        told = refusal(lambda connector=connector: importlib.import_module(connector))
        assert f"pip install 'vectorlake[{extra}]'" in told, f"{connector}: {told}"
    told = refusal(lake.table("ns.items").scan().to_pandas)
    assert "pip install 'vectorlake[pandas]'" in told, told


def refusal(call: Callable[[], object]) -> str:
    """What a call is refused with."""
    try:
        call()
    except vl.UnsupportedError as e:
        return str(e)
    return "nothing was refused"


def duckdb(lake: vl.Lake) -> None:
    import duckdb
    import vectorlake_duckdb

    con = duckdb.connect()
    con.register("given", ROWS)
    con.register("more", MORE)
    vectorlake_duckdb.attach(con, lake)
    vectorlake_duckdb.create_table(con, "ns.items", "FROM given", primary_key=["id"])
    vectorlake_duckdb.write(con, "FROM more", lake, "ns.items")
    assert con.execute("SELECT name FROM lake.ns.items WHERE id > 39").fetchall() == [("item 40",)]
    found = con.execute(f"SELECT id FROM knn('ns.items', {QUERY}, 3) ORDER BY rank").fetchall()
    assert [row[0] for row in found] == NEAREST


def datafusion(lake: vl.Lake) -> None:
    import datafusion
    import vectorlake_datafusion

    ctx = datafusion.SessionContext()
    ctx.from_arrow(ROWS, name="given")
    ctx.from_arrow(MORE, name="more")
    vectorlake_datafusion.attach(ctx, lake)
    vectorlake_datafusion.create_table(ctx, "ns.items", "SELECT * FROM given", primary_key=["id"])
    vectorlake_datafusion.write(ctx, "SELECT * FROM more", lake, "ns.items")
    assert ctx.sql("SELECT name FROM lake.ns.items WHERE id > 39").to_pydict() == {"name": ["item 40"]}
    found = ctx.sql(f"SELECT id FROM knn('ns.items', {QUERY}, 3) ORDER BY rank").to_pydict()
    assert found["id"] == NEAREST


def polars(lake: vl.Lake) -> None:
    import polars as pl
    import vectorlake_polars

    items = vectorlake_polars.create_table(pl.from_arrow(ROWS), lake, "ns.items", primary_key=["id"])  # type: ignore[arg-type]
    vectorlake_polars.write(pl.from_arrow(MORE), lake, "ns.items")  # type: ignore[arg-type]
    frame = vectorlake_polars.scan_vectorlake(items.refresh()).filter(pl.col("id") > 39).select("name")
    assert frame.collect().to_dicts() == [{"name": "item 40"}]
    assert vectorlake_polars.knn(items, QUERY, 3, columns=["id"])["id"].to_list() == NEAREST
    assert items.scan(["id"], "id < 2").to_polars().height == 2


def daft(lake: vl.Lake) -> None:
    import daft
    import vectorlake_daft

    items = vectorlake_daft.create_table(daft.from_arrow(ROWS), lake, "ns.items", primary_key=["id"])
    vectorlake_daft.write(daft.from_arrow(MORE), items)
    frame = vectorlake_daft.read(items).where(daft.col("id") > 39).select("name")
    assert frame.to_pydict() == {"name": ["item 40"]}
    assert vectorlake_daft.knn(items, QUERY, 3).to_pydict()["id"] == NEAREST
    asked = daft.from_pydict({"q": [QUERY]})
    assert sorted(vectorlake_daft.knn_join(asked, items, 3).to_pydict()["id"]) == sorted(NEAREST)
    vectorlake_daft.attach(lake, "lake")
    assert daft.sql("SELECT count(*) AS n FROM lake.ns.items").to_pydict() == {"n": [COUNT + 1]}


def ray(lake: vl.Lake) -> None:
    import ray
    import vectorlake_ray
    from ray.data.expressions import col

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 1024**2, log_to_driver=False)
    items = vectorlake_ray.create_table(ray.data.from_arrow(ROWS), lake, "ns.items", primary_key=["id"])
    vectorlake_ray.write(ray.data.from_arrow(MORE), items)
    found = vectorlake_ray.read(items).filter(expr=col("id") > 39).select_columns(["name"])
    assert found.take_all() == [{"name": "item 40"}]
    assert [row["id"] for row in vectorlake_ray.knn(items, QUERY, 3).take_all()] == NEAREST
    asked = ray.data.from_items([{"q": QUERY}])
    assert sorted(row["id"] for row in vectorlake_ray.knn_join(asked, items, 3).take_all()) == sorted(NEAREST)
    ray.shutdown()


def spark(lake: vl.Lake) -> None:
    import vectorlake_spark

    spark = vectorlake_spark.session("local[2]", config={"spark.ui.enabled": "false"})
    vectors = {"vec": 2}
    frame = spark.createDataFrame(ROWS)
    items = vectorlake_spark.create_table(frame, lake, "ns.items", primary_key=["id"], vectors=vectors)
    vectorlake_spark.write(spark.createDataFrame(MORE), lake, "ns.items")
    found = spark.read.format("vectorlake").load(items.uri).where("id > 39").select("name")
    assert [row.name for row in found.collect()] == ["item 40"]
    vectorlake_spark.attach(spark, lake)
    assert spark.sql("SELECT count(*) AS n FROM ns.items").collect()[0].n == COUNT + 1
    asked = spark.createDataFrame(pa.table({"q": pa.array([QUERY], pa.list_(pa.float32(), 2))}))
    rows = vectorlake_spark.knn(asked, items.refresh(), 3).orderBy("rank").collect()
    assert [row.id for row in rows] == NEAREST
    spark.stop()


def torch(lake: vl.Lake) -> None:
    import torch
    import vectorlake_torch
    from torch.utils.data import DataLoader

    plain(lake)
    items = lake.table("ns.items")
    stream = vectorlake_torch.IterableTable(items, batch_size=16, columns=["id", "vec"], filter="id < 20")
    batches = list(DataLoader(stream, batch_size=None))
    assert [len(batch["id"]) for batch in batches] == [16, 4]
    assert torch.equal(batches[0]["vec"], torch.from_numpy(VECTORS[:16].copy()))
    assert len(vectorlake_torch.MapTable(items)) == COUNT + 1


def gpu(lake: vl.Lake) -> None:
    plain(lake)
    found = lake.table("ns.items").knn(QUERY, k=3, columns=["id"], device="cpu")
    assert found["id"].to_pylist() == NEAREST


def iceberg(lake: vl.Lake) -> None:
    import vectorlake_iceberg
    from pyiceberg.catalog.sql import SqlCatalog

    warehouse = Path("warehouse").resolve()
    warehouse.mkdir()
    catalog = SqlCatalog("prod", uri="sqlite:///catalog.db", warehouse=f"file://{warehouse}")
    catalog.create_namespace("shop")
    source = catalog.create_table("shop.items", schema=ROWS.select(["id", "name"]).schema)
    source.append(ROWS.select(["id", "name"]))
    items = vectorlake_iceberg.import_table(source, lake, "ns.items")
    items.add_column("vec", lambda batch: VECTORS[batch["id"].to_numpy()], type=vl.vector(2), inputs=["id"])
    assert items.scan(["name"], "id < 2").to_arrow()["name"].to_pylist() == ["item 0", "item 1"]
    assert items.knn(QUERY, k=3, columns=["id"])["id"].to_pylist() == NEAREST
    source.append(MORE.select(["id", "name"]))
    vectorlake_iceberg.sync(items, source)
    assert items.count() == COUNT + 1


def jobs(lake: vl.Lake) -> None:
    import vectorlake_jobs

    plain(lake)
    items = lake.table("ns.items")
    vectorlake_jobs.knn_join(None, items, into="ns.pairs", lake=lake, k=3, engine="local")
    assert lake.table("ns.pairs").count() == 3 * (COUNT + 1)
    vectorlake_jobs.dedup(items, by="text", column="name", as_column="group", engine="threads")
    vectorlake_jobs.cluster(items.refresh(), column="vec", k=3, as_column="cluster", engine="threads")
    for method in ("pca", "umap"):
        vectorlake_jobs.reduce(
            items.refresh(), method=method, column="vec", dimensions=1, as_column=method, engine="threads"
        )
    items.refresh()
    assert items.count("cluster IS NOT NULL AND pca IS NOT NULL AND umap IS NOT NULL") == COUNT + 1


def pandas(lake: vl.Lake) -> None:
    import pandas as pd

    plain(lake)
    items = lake.table("ns.items")
    items.append(pd.DataFrame({"id": [100], "name": ["frame"]}))
    assert items.scan(["id", "name"], "id >= 40").to_pandas()["name"].tolist() == ["item 40", "frame"]


def otel(lake: vl.Lake) -> None:
    from opentelemetry import trace

    assert trace.get_tracer("mine") is not None
    plain(lake)


SESSIONS: dict[str, Callable[[vl.Lake], None]] = {
    **{
        session.__name__: session
        for session in (
            *(core, duckdb, datafusion, polars, daft, ray, spark, torch, gpu, iceberg, jobs, pandas, otel),
        )
    },
}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="vectorlake-session-") as folder:
        os.chdir(folder)
        SESSIONS[sys.argv[1]](vl.connect("lake"))
    print("session passed")
