"""Tables that released versions wrote read as they did then: their files are never changed, whatever the code becomes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.kernels import Metric, pairwise_distances

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED = sorted(FIXTURES.glob("*/expected/*.arrow"))
TABLES = sorted({(path.parts[-3], path.name.rsplit(".", 2)[0]) for path in EXPECTED})


def read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def plain(table: pa.Table) -> pa.Table:
    """The table without metadata, extension types replaced by their storage."""
    columns = [
        column.combine_chunks().storage
        if isinstance(column.type, pa.BaseExtensionType)
        else column.combine_chunks()
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def test_every_release_has_fixtures() -> None:
    assert {release for release, _ in TABLES} >= {"0.1.0"}
    assert {name for release, name in TABLES if release == "0.1.0"} >= {
        "history.evolved",
        "types.vortex",
        "formats.lance_parquet",
        "arranged.balls",
        "indexed.items",
    }


@pytest.mark.parametrize("path", EXPECTED, ids=["-".join((path.parts[-3], path.stem)) for path in EXPECTED])
def test_a_version_reads_as_it_did(path: Path) -> None:
    name, version = path.stem.rsplit(".", 1)
    table = vl.connect(path.parents[1]).table(name).at(int(version))
    found, wanted = plain(table.scan(with_row_id=True).to_arrow()), plain(read(path))
    assert [(f.name, f.type) for f in found.schema] == [(f.name, f.type) for f in wanted.schema]
    # As text, in which NaN equals itself and the zeros differ.
    assert repr(found.to_pylist()) == repr(wanted.to_pylist())
    taken = plain(table.take(wanted["_row_id"], columns=[*table.schema.names, "_row_id"]))
    assert repr(taken.to_pylist()) == repr(wanted.to_pylist())
    assert table.verify() == []


@pytest.mark.parametrize(("release", "name"), TABLES, ids=["-".join(table) for table in TABLES])
def test_a_table_can_be_written_on(release: str, name: str, tmp_path: Path) -> None:
    folder = FIXTURES / release / name.replace(".", "/")
    shutil.copytree(folder, tmp_path / "copy")
    table = vl.open_table(tmp_path / "copy")
    before, rows = table.snapshot, table.to_arrow()
    table.append(rows.slice(0, 1))
    assert len(table) == len(rows) + 1
    assert table.schema == rows.schema
    newest = table.scan(columns=["_row_id"]).to_arrow()["_row_id"][-1].as_py()
    assert newest == before.next_row_id, "a row id was used again"
    table.delete(f"_row_id = {newest}")
    assert repr(table.to_arrow().to_pylist()) == repr(rows.to_pylist())
    assert table.snapshot.properties == before.properties


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("*/expected/formats.*.arrow")), ids=lambda path: path.stem
)
def test_vectors_are_searched(path: Path) -> None:
    name, version = path.stem.rsplit(".", 1)
    table, wanted = vl.connect(path.parents[1]).table(name).at(int(version)), read(path)
    vectors, row_ids = (
        np.array(wanted["vec"].to_pylist(), np.float64),
        np.array(wanted["_row_id"].to_pylist()),
    )
    query = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    distances = ((vectors - query) ** 2).sum(axis=1)
    order = np.lexsort((row_ids, distances))
    found = table.knn(query, column="vec", k=len(wanted))
    assert found["row_id"].to_pylist() == row_ids[order].tolist()
    np.testing.assert_allclose(found["distance"].to_numpy(), distances[order])
    assert len(table.knn(np.ones(3), column="half", k=5)) == sum(
        half is not None for half in wanted["half"].to_pylist()
    )


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_balls_rule_out_runs_of_an_arranged_table(metric: str) -> None:
    for path in FIXTURES.glob("*/expected/arranged.balls.*.arrow"):
        table, wanted = vl.connect(path.parents[1]).table("arranged.balls"), read(path)
        query = np.array(wanted["vec"].to_pylist()[700]) + 0.125
        told = table.explain_knn(query, column="vec", k=5, metric=metric)
        assert 0 < told.runs_skipped < told.runs
        vectors = np.array(wanted["vec"].to_pylist())
        distances = pairwise_distances(query.reshape(1, -1), vectors, Metric(metric))[0]
        order = np.lexsort((wanted["_row_id"].to_numpy(), distances))[:5]
        assert told.found["row_id"].to_pylist() == wanted["_row_id"].take(order).to_pylist()
        np.testing.assert_allclose(told.found["distance"].to_numpy(), distances[order], atol=1e-9)


@pytest.mark.filterwarnings("error::vectorlake.errors.DamagedIndexWarning")
@pytest.mark.parametrize("name", ["flat", "rabitq", "pq", "int8", "as_stored", "graph", "bits"])
def test_indexes_of_every_kind_are_searched_on(name: str) -> None:
    for path in FIXTURES.glob("*/expected/indexed.items.*.arrow"):
        table, wanted = vl.connect(path.parents[1]).table("indexed.items"), read(path)
        told = table.describe_index(name)
        column, metric = told.column, Metric(told.metric)
        most = {
            {"ivf": "nprobe", "graph": "ef", "flat": "nprobe"}[told.kind]: len(wanted),
            "pool": len(wanted),
        }
        assert told.covered_rows == len(wanted) - 5
        bits = metric is Metric.HAMMING
        vectors = np.array(wanted[column].to_pylist(), "u1" if bits else "f4")
        queries = vectors[::40] if bits else vectors[::40] + np.float32(0.01)
        found = table.knn(queries, column=column, k=5, index=name, mode="index", **most)
        distances = pairwise_distances(queries, vectors, metric)
        order = np.argsort(distances, axis=1, kind="stable")[:, :5]
        assert found["row_id"].to_pylist() == wanted["_row_id"].take(order.ravel()).to_pylist()
        few = table.knn(queries, column=column, k=5, index=name, mode="index", target_recall=0.95)
        assert np.isin(few["row_id"].to_numpy(), found["row_id"].to_numpy()).mean() > 0.8


@pytest.mark.filterwarnings("error::vectorlake.errors.DamagedIndexWarning")
def test_an_index_of_multivectors_is_searched_on() -> None:
    for path in FIXTURES.glob("*/expected/indexed.items.*.arrow"):
        table, wanted = vl.connect(path.parents[1]).table("indexed.items"), read(path)
        queries = wanted["tokens"].to_pylist()[::40]
        exact = table.knn(queries, column="tokens", k=5, metric="cosine", mode="exact")
        found = table.knn(queries, column="tokens", k=5, index="tokens", mode="index", target_recall=1.0)
        assert found["row_id"].to_pylist() == exact["row_id"].to_pylist()


def test_tags_and_times_are_found() -> None:
    for lake in FIXTURES.glob("*"):
        table = vl.connect(lake).table("history.evolved")
        assert [tag.name for tag in table.tags()] == ["before-append"]
        tagged = table.at("before-append")
        assert tagged.version == 8
        assert [snapshot.operation for snapshot in table.history()][:3] == [
            "restore",
            "overwrite",
            "reorder-columns",
        ]
        times = [snapshot.timestamp_ms for snapshot in table.history()]
        assert times == sorted(times, reverse=True)


def test_files_carry_fixed_ids() -> None:
    """A fixture written anew by mistake would have random names."""
    names = [path.name for path in FIXTURES.rglob("data/*")]
    assert names
    assert all(re.fullmatch(r"0{28}[0-9a-f]{4}\.\w+", name) for name in names)
