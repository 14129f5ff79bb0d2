"""`benchmarks/ann.py` as a program: HDF5 files of ann-benchmarks, folders of arrays, and wrong arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = Path(os.environ.get("VECTORLAKE_BENCH_DATA", BENCHMARKS.parents[1] / "shared" / "data"))
ROWS, QUERIES, TRUTH = 600, 40, 20


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    """Rows and queries: of the shared set where it is there, else random."""
    shared = SHARED / "pypi_minilm" / "vectors.npy"
    if shared.exists():
        some = np.load(shared, mmap_mode="r")[: ROWS + QUERIES].astype(np.float32)
    else:
        some = np.random.default_rng(0).normal(size=(ROWS + QUERIES, 64)).astype(np.float32)
    return some[:ROWS], some[ROWS:]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "ann.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)


def truth(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    squares = ((queries[:, None, :].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    return np.argsort(squares, axis=1, kind="stable")[:, :TRUTH]


def write_hdf5(path: Path, rows: np.ndarray, queries: np.ndarray, distance: str) -> Path:
    h5py = pytest.importorskip("h5py", reason="HDF5 files are read by h5py, of the extra bench")
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = distance
        file.attrs["type"] = "dense"
        file["train"], file["test"] = rows, queries
        file["neighbors"] = truth(rows, queries).astype(np.int32)
        file["distances"] = np.zeros((len(queries), TRUTH), np.float32)
    return path


@pytest.mark.slow
def test_an_hdf5_file_is_measured_from_end_to_end(
    tmp_path: Path, vectors: tuple[np.ndarray, np.ndarray]
) -> None:
    path = write_hdf5(tmp_path / "some-64-euclidean.hdf5", *vectors, "euclidean")
    out = tmp_path / "out"
    done = run(
        "--data", str(path), "--only", "vectorlake-exact,milvus", "--rounds", "1", "--threads", "1",
        "--self-join", "50", "--out", str(out), "--python", f"milvus-lite={sys.executable}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((out / f"ann-some-64-euclidean-{ROWS}.json").read_text())
    assert (told["metric"], told["k"], told["threads"]) == ("l2", 10, 1)
    exact = told["outcomes"][0]
    assert exact["name"] == "vectorlake-exact"
    assert exact["skipped"] is None
    assert exact["points"][0]["recall"] == 1.0
    assert exact["points"][0]["qps"] > 0
    assert exact["join"]["rows"] == 50
    assert exact["join"]["recall"] == 1.0


@pytest.mark.slow
def test_a_folder_of_arrays_is_measured_beside_an_interpreter_that_has_nothing(
    tmp_path: Path, vectors: tuple[np.ndarray, np.ndarray]
) -> None:
    rows, queries = vectors
    np.save(tmp_path / "vectors.npy", rows)
    np.save(tmp_path / "query_vectors.npy", queries)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    done = run(
        "--data", str(tmp_path), "--only", "vectorlake-exact,faiss-flat", "--rounds", "1", "--k", "3",
        "--rows", "500", "--out", str(tmp_path), "--python", f"faiss-flat={bare}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / f"ann-{tmp_path.stem}-500.json").read_text())
    ours, peer = told["outcomes"]
    assert ours["points"][0]["recall"] == 1.0
    assert "numpy" in peer["skipped"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nosuch"], "no contestant begins with 'nosuch'"),
        (["--only", ","], "names no contestant"),
        (["--k", "0"], "'0' is not a whole number from 1"),
        (["--rows", "many"], "'many' is not a whole number from 1"),
        (["--python", "faiss-flat=/nowhere"], "is not NAME=PATH"),
        (["--metric", "hamming"], "invalid choice"),
        (["--data", "/nowhere.hdf5"], "there is no file or folder /nowhere.hdf5"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_sets_that_hold_something_else_are_told(
    tmp_path: Path, vectors: tuple[np.ndarray, np.ndarray]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.hdf5").write_text("no HDF5 here")
    write_hdf5(tmp_path / "sets.hdf5", *vectors, "jaccard")
    write_hdf5(tmp_path / "few.hdf5", *vectors, "angular")
    for name, arguments, told in [
        ("empty", [], "has no vectors.npy"),
        ("text.hdf5", [], "is no HDF5 file of ann-benchmarks"),
        ("sets.hdf5", [], "has the metric 'jaccard'"),
        ("few.hdf5", ["--k", "1000"], "has 600 rows, fewer than the 1,000 neighbours"),
    ]:
        done = run("--data", str(tmp_path / name), *arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr
