"""The command line on a small lake: what each command answers, for people and as JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import vectorlake as vl
from vectorlake.cli.app import app
from vectorlake.cli.failure import ExitCode

ROWS = 40
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that tests only read: `ns.items` with three versions and a tag, and `main.other`."""
    root = tmp_path_factory.mktemp("cli") / "lake"
    opened = vl.connect(root)
    vectors = np.eye(ROWS, 8, dtype="f4") + np.arange(ROWS, dtype="f4")[:, None]
    items = opened.create_table(
        "ns.items",
        {
            "id": np.arange(ROWS),
            "name": [
                f"item {i}\nof a long story that no cell of a table can show as a whole" for i in range(ROWS)
            ],
            "price": np.arange(ROWS) / 4,
            "at": pa.array([dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)] * ROWS),
            "vec": vectors,
        },
    )
    items.tag("first")
    items.append({"id": [1000], "name": ["late"], "price": [None]})
    items.delete("id < 5")
    opened.create_table("other", {"a": [1, 2], "s": [{"x": 1, "y": "b"}, None]})
    return root


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A lake to write to, with a table `t` of three rows."""
    vl.connect(tmp_path / "lake").create_table("t", {"id": [1, 2, 3], "name": ["a", "b", None]})
    return tmp_path / "lake"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; fails unless it exits with `code`."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VECTORLAKE_LAKE", raising=False)

    def invoke(*arguments: object, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return invoke


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- looking ---


def test_ls(run: Run, lake: Path) -> None:
    found = lines(run("ls", lake, "--json"))
    assert [(t["table"], t["rows"], t["columns"], t["version"]) for t in found] == [
        ("main.other", 2, 2, 1),
        ("ns.items", ROWS + 1 - 5, 5, 3),
    ]
    assert all(dt.datetime.fromisoformat(t["committed"]).tzinfo for t in found)
    assert [t["table"] for t in lines(run("ls", lake, "--namespace", "ns", "--json"))] == ["ns.items"]
    shown = run("ls", lake)
    assert "ns.items" in shown.stdout
    assert "36" in shown.stdout


def test_ls_of_nothing(run: Run, tmp_path: Path) -> None:
    result = run("ls", tmp_path)
    assert result.stdout == ""
    assert "no tables" in result.stderr
    assert run("ls", tmp_path, "--json").stdout == ""


def test_info(run: Run, lake: Path) -> None:
    info = json.loads(run("info", lake, "ns.items", "--json").stdout)
    assert (info["rows"], info["deleted_rows"], info["fragments"], info["version"]) == (36, 5, 2, 3)
    assert info["operation"] == "delete"
    assert info["tags"] == {"first": 1}
    assert info["foreign_bytes"] == 0
    assert info["own_bytes"] == sum(group["own_bytes"] for group in info["formats"].values()) > 0
    assert json.loads(run("info", lake, "ns.items", "--version", "first", "--json").stdout)["rows"] == ROWS
    shown = run("info", lake, "ns.items").stdout
    assert "36 in 2 fragments (5 more deleted)" in shown
    assert "first = version 1" in shown


def test_schema(run: Run, lake: Path) -> None:
    fields = json.loads(run("schema", lake, "ns.items", "--json").stdout)["fields"]
    assert [(field["name"], field["type"]) for field in fields] == [
        ("id", "int64"),
        ("name", "string"),
        ("price", "float64"),
        ("at", "timestamp(us, UTC)"),
        ("vec", "vector(8, f32)"),
    ]
    assert [field["id"] for field in fields] == [1, 2, 3, 4, 5]
    (_, nested) = json.loads(run("schema", lake, "other", "--json").stdout)["fields"]
    assert [child["name"] for child in nested["fields"]] == ["x", "y"]
    assert "struct(x: int64, y: string)" in run("schema", lake, "other").stdout


def test_history(run: Run, lake: Path) -> None:
    found = lines(run("history", lake, "ns.items", "--json"))
    assert [(v["version"], v["operation"], v["parent"], v["tag"]) for v in found] == [
        (3, "delete", 2, None),
        (2, "append", 1, None),
        (1, "create", None, "first"),
    ]
    assert len(lines(run("history", lake, "ns.items", "--limit", 1, "--json"))) == 1
    assert "added rows 40" in run("history", lake, "ns.items").stdout


def test_files(run: Run, lake: Path) -> None:
    found = lines(run("files", lake, "ns.items", "--json"))
    assert {file["fragment"] for file in found} == {0, 1}
    assert not any(file["foreign"] for file in found)
    (vectors,) = (file for file in found if file["columns"] == ["vec"] and file["fragment"] == 0)
    path = lake / "ns" / "items" / vectors["path"]
    assert path.stat().st_size == vectors["bytes"]
    assert (vectors["rows"], vectors["format"], vectors["deleted_rows"]) == (ROWS, "arrow", 5)
    assert "own" in run("files", lake, "ns.items").stdout


# --- asking ---


def test_scan(run: Run, lake: Path) -> None:
    result = run("scan", lake, "ns.items", "--columns", "id, at,vec", "--filter", "id IN (7, 1000)", "--json")
    (seven, late) = lines(result)
    assert list(seven) == ["id", "at", "vec"]
    assert seven["id"] == 7
    assert dt.datetime.fromisoformat(seven["at"]) == dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    assert seven["vec"] == [7.0] * 7 + [8.0]
    assert late == {"id": 1000, "at": None, "vec": None}
    assert len(lines(run("scan", lake, "ns.items", "--json"))) == 36
    assert len(lines(run("scan", lake, "ns.items", "--json", "--limit", 3))) == 3
    assert len(lines(run("scan", lake, "ns.items", "--json", "--version", 1))) == ROWS
    assert lines(run("scan", lake, "ns.items", "--json", "--row-id", "--limit", 1))[0]["_row_id"] == 5


def test_scan_for_people(run: Run, lake: Path) -> None:
    result = run("scan", lake, "ns.items")
    body = result.stdout.splitlines()[2:]
    assert len(body) == 20
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "the first 20 of 36 rows" in result.stderr
    assert "(8)" in run("scan", lake, "ns.items", "--columns", "vec", "--filter", "id = 7").stdout
    assert "no rows" in run("scan", lake, "ns.items", "--filter", "id = -1").stderr
    assert "·" in run("scan", lake, "ns.items", "--filter", "id = 1000").stdout


def test_count(run: Run, lake: Path) -> None:
    assert run("count", lake, "ns.items").stdout.strip() == "36"
    assert json.loads(run("count", lake, "ns.items", "--filter", "id < 10", "--json").stdout) == {"rows": 5}


@pytest.mark.parametrize("form", ["text", "json", "npy", "stdin"])
def test_knn_by_vector(run: Run, lake: Path, tmp_path: Path, form: str) -> None:
    vector = [9.0] * 8
    given, stdin = json.dumps(vector), None
    match form:
        case "json":
            given = str(tmp_path / "q.json")
            Path(given).write_text(json.dumps(vector))
        case "npy":
            given = str(tmp_path / "q.npy")
            np.save(given, np.array(vector, "f4"))
        case "stdin":
            given, stdin = "-", json.dumps(vector)
    found = lines(
        run("knn", lake, "ns.items", "--query", given, "-k", 2, "--json", "--columns", "id", stdin=stdin)
    )
    assert [(hit["query"], hit["rank"], hit["row_id"], hit["id"], hit["distance"]) for hit in found] == [
        (0, 0, 9, 9, 0.0),
        (0, 1, 8, 8, 8.0),
    ]


def test_knn_by_an_index(run: Run, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((60, 4)).astype("f4")
    table = vl.connect(tmp_path).create_table(
        "t", {"id": np.arange(60), "kind": np.arange(60) % 3, "vec": vectors}
    )
    table.create_index("vec", "flat", name="ix")
    asked = ("knn", tmp_path, "t", "--query", json.dumps(vectors[5].tolist()), "-k", 4)
    plain = lines(run(*asked, "--json"))
    for more in (("--index", "ix"), ("--mode", "index"), ("--target-recall", 0.9), ("--nprobe", 1)):
        assert lines(run(*asked, *more, "--json")) == plain
    assert [row["id"] for row in lines(run(*asked, "--offset", 2, "--json"))][:2] == [
        row["id"] for row in plain[2:]
    ]
    kinds = [row["kind"] for row in lines(run(*asked, "--group-by", "kind", "--mode", "index", "--json"))]
    assert sorted(kinds) == [0, 1, 2]
    near = lines(run(*asked, "--max-distance", plain[1]["distance"], "--json"))
    assert near == plain[:2]
    assert "index 'ix' (flat)" in run(*asked, "--index", "ix", "--explain").stdout
    told = json.loads(run(*asked, "--index", "ix", "--explain", "--json").stdout)
    assert (told["index"], told["queries"], told["milliseconds"]["total"] > 0) == ("ix", 1, True)
    assert "no index" in run("knn", tmp_path, "t", "--like", 3, "--index", "iy", code=3).stderr


def test_knn_like_a_row(run: Run, lake: Path) -> None:
    found = lines(run("knn", lake, "ns.items", "--like", 20, "-k", 2, "--metric", "l2", "--json"))
    assert [hit["row_id"] for hit in found] == [19, 21]
    assert "vec" not in found[0]
    found = lines(
        run("knn", lake, "ns.items", "--like", 20, "-k", 1, "--filter", "id > 20 OR id = 20", "--json")
    )
    assert [hit["row_id"] for hit in found] == [21]
    shown = run("knn", lake, "ns.items", "--like", 20, "-k", 1).stdout
    assert shown.split()[:2] == ["row_id", "distance"]


def test_query(run: Run, lake: Path) -> None:
    pytest.importorskip("vectorlake_duckdb")
    sql = "SELECT count(*) AS n, max(id) AS most FROM lake.ns.items"
    assert lines(run("query", lake, sql, "--json")) == [{"n": 36, "most": 1000}]
    assert "1000" in run("query", lake, sql).stdout
    assert len(lines(run("query", lake, "SELECT id FROM lake.ns.items", "--limit", 3, "--json"))) == 3
    assert "Binder" in run("query", lake, "SELECT nothing FROM lake.ns.items", code=2).stderr
    short = run("query", lake, "SELECT * FROM knn('ns.items', [1, 2]::FLOAT[])", code=2).stderr
    assert short.startswith("error: the queries have dimension 2")
    lost = run("query", lake, "SELECT * FROM knn('ns.itms', [1, 2]::FLOAT[])", code=3).stderr
    assert "did you mean 'ns.items'" in lost
    assert "convert" in run("query", lake, "SELECT name::INT FROM lake.ns.items", code=2).stderr


def test_verify(run: Run, lake: Path) -> None:
    found = json.loads(run("verify", lake, "ns.items", "--json").stdout)
    assert (found["ok"], found["findings"], found["files"] > 1) == (True, [], True)
    assert "all is well" in run("verify", lake, "ns.items").stdout


def test_verify_finds_damage(run: Run, fresh: Path) -> None:
    (file,) = (fresh / "main" / "t" / "data").iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(damaged)
    found = json.loads(run("verify", fresh, "t", "--json", code=1).stdout)
    assert [finding["path"] for finding in found["findings"]] == [f"data/{file.name}"]
    assert "checksum" in run("verify", fresh, "t", code=1).stdout


# --- writing ---


def test_tags_and_restore(run: Run, fresh: Path) -> None:
    assert json.loads(run("tag", "create", fresh, "t", "v1", "--json").stdout)["version"] == 1
    run("delete", fresh, "t", "--filter", "id = 1")
    assert (
        json.loads(run("tag", "create", fresh, "t", "again", "--version", "v1", "--json").stdout)["version"]
        == 1
    )
    assert [tag["tag"] for tag in lines(run("tag", "list", fresh, "t", "--json"))] == ["again", "v1"]
    restored = json.loads(run("restore", fresh, "t", "v1", "--json").stdout)
    assert (restored["version"], restored["rows"], restored["operation"]) == (3, 3, "restore")
    run("tag", "delete", fresh, "t", "v1")
    assert "v1" not in run("tag", "list", fresh, "t").stdout
    run("tag", "delete", fresh, "t", "v1", code=3)
    run("restore", fresh, "t", 17, code=3)


def test_time_travel_by_time(run: Run, fresh: Path) -> None:
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()
    assert json.loads(run("count", fresh, "t", "--version", later, "--json").stdout) == {"rows": 3}
    run("count", fresh, "t", "--version", "1999-01-01", code=3)
    assert "is no time" in run("count", fresh, "t", "--version", "1999-13-01", code=2).stderr


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow", "arrows", "jsonl", "npy", "folder"])
def test_create_and_append_from_files(run: Run, tmp_path: Path, suffix: str) -> None:
    data = pa.table({"id": [1, 2], "name": ["a", "b"]})
    path = tmp_path / f"data.{suffix}"
    match suffix:
        case "parquet":
            pq.write_table(data, path)
        case "csv":
            pa.csv.write_csv(data, path)
        case "arrow" | "arrows":
            make = pa.ipc.new_file if suffix == "arrow" else pa.ipc.new_stream
            with make(path, data.schema) as writer:
                writer.write_table(data)
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in data.to_pylist()))
        case "npy":
            np.save(path, np.ones((2, 3), "f4"))
        case "folder":
            path.mkdir()
            pq.write_table(data, path / "0.parquet")
    lake = tmp_path / "lake"
    created = json.loads(run("create", lake, "ns.t", path, "--json").stdout)
    assert (created["table"], created["rows"], created["committed"]) == ("ns.t", 2, True)
    run("create", lake, "ns.t", path, code=4)
    assert "appended 2 rows" in run("append", lake, "ns.t", path).stdout
    rows = lines(run("scan", lake, "ns.t", "--json"))
    assert len(rows) == 4
    assert (
        rows[0] == rows[2] == ({"id": 0, "vector": [1, 1, 1]} if suffix == "npy" else {"id": 1, "name": "a"})
    )
    assert json.loads(run("info", lake, "ns.t", "--json").stdout)["primary_key"] == []
    if suffix != "npy":
        run("create", lake, "ns.keyed", path, "--primary-key", "id")
        assert json.loads(run("info", lake, "ns.keyed", "--json").stdout)["primary_key"] == ["id"]
        assert "primary keys" in run("append", lake, "ns.keyed", path, code=4).stderr


def test_delete_and_drop(run: Run, fresh: Path) -> None:
    assert "deleted 1 rows" in run("delete", fresh, "t", "--filter", "id = 2").stdout
    nothing = json.loads(run("delete", fresh, "t", "--filter", "id = 2", "--json").stdout)
    assert (nothing["committed"], nothing["version"]) == (False, 2)
    assert "--yes" in run("drop", fresh, "t", code=2).stderr
    assert json.loads(run("drop", fresh, "t", "--yes", "--json").stdout) == {"dropped": "main.t"}
    assert run("ls", fresh, "--json").stdout == ""


def test_add_column_by_sql_default_and_type(run: Run, fresh: Path) -> None:
    run("add-column", fresh, "t", "double", "--sql", "id * 2")
    run("add-column", fresh, "t", "seven", "--type", "int32", "--default", "7")
    run("add-column", fresh, "t", "empty", "--type", "vector(4, f16)")
    assert lines(run("scan", fresh, "t", "--json", "--filter", "id = 3")) == [
        {"id": 3, "name": None, "double": 6, "seven": 7, "empty": None}
    ]
    run("drop-column", fresh, "t", "seven")
    types = {f["name"]: f["type"] for f in json.loads(run("schema", fresh, "t", "--json").stdout)["fields"]}
    assert types == {"id": "int64", "name": "string", "double": "int64", "empty": "vector(4, f16)"}


def test_add_column_by_function_and_backfill(
    run: Run, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "my_functions.py"
    module.write_text(
        "import numpy as np\n"
        "class models:\n"
        "    @staticmethod\n"
        "    def ones(batch):\n"
        "        assert batch.schema.names == ['id']\n"
        "        return np.ones((batch.num_rows, 4), 'f4') * batch['id'].to_numpy()[:, None]\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--type", "vector(4)", "--inputs", "id"]
    run(
        "add-column", fresh, "t", "vec", "--function", "my_functions:models.ones", *options, "--batch-size", 2
    )
    vl.connect(fresh).table("t").append({"id": [9]})
    filled = run(
        "backfill", fresh, "t", "vec", "--function", f"{module}:models.ones", "--inputs", "id", "--json"
    )
    summary = json.loads(filled.stdout)["summary"]
    assert (summary["column"], summary["changed_fragments"]) == ("vec", 1)
    assert [row["vec"][0] for row in lines(run("scan", fresh, "t", "--json"))] == [1, 2, 3, 9]


# --- the lake from elsewhere ---


@pytest.mark.parametrize("how", ["option", "before", "environment"])
def test_lake_is_left_out(run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    before, after = [], []
    match how:
        case "option":
            after = ["--lake", lake]
        case "before":
            before = ["--lake", lake]
        case "environment":
            monkeypatch.setenv("VECTORLAKE_LAKE", str(lake))
    assert run(*before, "count", "ns.items", *after).stdout.strip() == "36"
    assert len(lines(run(*before, "ls", *after, "--json"))) == 2
    assert run(*before, "count", *after, "ns.items", "--filter", "id < 10").stdout.strip() == "5"
    # Naming it all the same is fine, and wins.
    assert "no table" in run(*before, "count", lake / "elsewhere", "ns.items", *after, code=3).stderr


def test_storage_options_reach_the_store(run: Run) -> None:
    wrong = run("ls", "s3://bucket/x", "--storage-option", "no_such_option=1", code=2)
    assert "no_such_option" in wrong.stderr
    assert "key=value" in run("ls", "lake", "--storage-option", "novalue", code=2).stderr


# --- import ---


def test_import_and_sync(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("vectorlake_iceberg")
    from vectorlake.demo.source import build_source

    data = pa.table({"id": [1, 2, 3], "kind": ["a", "b", "a"]})
    source = build_source(tmp_path / "iceberg", data.to_batches(), appends=1)
    lake, uri = tmp_path / "lake", f"sqlite:///{tmp_path / 'iceberg' / 'catalog.db'}"
    catalog = ["--catalog", "demo", "--uri", uri]
    metadata = source.table.metadata_location
    assert json.loads(run("import", metadata, lake, "ns.a", "--json").stdout)["rows"] == 3
    assert "imported ns.b" in run("import", "docs.docstrings", lake, "ns.b", *catalog).stdout
    files = lines(run("files", lake, "ns.a", "--json"))
    assert all(file["foreign"] for file in files)
    assert not (lake / "ns" / "a" / "data").exists()
    assert "docs.docstrings" in run("info", lake, "ns.b").stdout.replace("\n", "")
    run("import", metadata, lake, "ns.a", code=4)
    run("import", tmp_path / "none.metadata.json", lake, "ns.c", code=3)
    run("import", "docs.nothing", lake, "ns.c", *catalog, code=3)
    run("import", "docs.docstrings", lake, "ns.c", "--uri", uri, code=2)

    source.table.append(pa.table({"id": [4], "kind": ["b"]}))
    assert json.loads(run("sync", lake, "ns.a", "--json").stdout)["rows"] == 4
    assert "is what its source is" in run("sync", lake, "ns.a").stdout
    assert "synced ns.b" in run("sync", lake, "ns.b", "--source", "docs.docstrings", *catalog).stdout
    vl.connect(lake).create_table("ns.own", {"id": [1]})
    run("sync", lake, "ns.own", code=2)


# --- the documentation ---


def test_the_commands_of_the_documentation_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every `vectorlake` line of docs/cli.md works, in order; the page's table of exit codes is complete."""
    pytest.importorskip("vectorlake_duckdb")
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    ran = 0
    for language, text in blocks:
        if text.startswith("# not run: "):
            continue
        if language == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            run(*shlex.split(line)[1:])
            ran += 1
    assert ran > 20
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert codes == {int(code) for code in ExitCode}
    commands = {command.name for command in app.registered_commands} | {"tag"}
    assert {name for name in commands if f"vectorlake {name}" not in page} == set()
