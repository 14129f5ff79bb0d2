"""Nearest-neighbour indexes: ours through a table on disk, and their peers, one process at a time in the same run.

    python benchmarks/ann.py [--data PATH …] [--rows N] [--only NAMES] [--quick] [--self-join N] [--cold]

Reads ann-benchmarks HDF5 files, or folders with `vectors.npy`, `query_vectors.npy` and perhaps `neighbors.npy`; without
`--data` the set `pypi_minilm` in the folder named by VECTORLAKE_BENCH_DATA or in `../shared/data` beside the checkout, and
where that is not there, random clustered vectors. Measures build time, size, recall@10 against batched queries a second
over each index's own settings, single queries one after another on one thread, and on request a self-join and cold
queries from an S3 server. Writes JSON and plots into `benchmarks/results`. Peers that are not installed are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _ann import cold, report
from _ann.datasets import SYNTHETIC, read
from _ann.peers import CONTESTANTS, OURS
from _ann.protocol import Skip
from rich.console import Console

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("VECTORLAKE_BENCH_DATA", HERE.parents[1] / "shared" / "data")) / "pypi_minilm"
QUICK_ROWS = 20_000
QUICK = (*OURS, "faiss-flat", "faiss-fastscan", "symphonyqg", "turbovec-2", "lance-rq")
LIMIT = 1_800
"""Seconds that one contestant may take."""
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LANCE_CPU_THREADS",
)


def main() -> int:
    given = arguments()
    names = chosen(given.only, quick=given.quick)
    status = 0
    for where in given.data or [str(SHARED) if SHARED.exists() else SYNTHETIC]:
        rows = given.rows or (QUICK_ROWS if given.quick else None)
        try:
            data = read(where, rows=rows, metric=given.metric)
        except Skip as e:
            print(f"skipped: {e}")
            continue
        outcomes = [one(name, where, rows, given) for name in names]
        title = (
            f"{data.name}: {len(data.base):,} × {data.base.shape[1]} {data.element}, {data.metric}, k = {given.k}, "
            f"{given.threads} threads"
        )
        report.show(outcomes, title)
        facts: dict[str, Any] = {
            "data": data.name,
            "metric": data.metric,
            "k": given.k,
            "threads": given.threads,
            "machine": platform.processor() or platform.machine(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if given.cold:
            facts["cold"] = cold_lines(data, given.threads)
        for path in report.save(outcomes, facts, given.out, data.name):
            print(f"wrote {path}")
        status |= any(outcome["skipped"] for outcome in outcomes if outcome["name"] in OURS)
    return status


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", action="append", help="a file or folder; may be given several times")
    options.add_argument("--rows", type=int, help="only the first rows; the truth is computed anew")
    options.add_argument("--metric", choices=["l2", "cosine", "dot"])
    options.add_argument("--k", type=int, default=10)
    options.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--only", default="", help="comma-separated, by beginning: vectorlake,faiss,lance-rq"
    )
    options.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROWS:,} rows and few peers: a minute or two"
    )
    options.add_argument("--self-join", type=int, default=0, metavar="ROWS")
    options.add_argument("--cold", action="store_true", help="also single queries from an S3 server")
    options.add_argument("--out", type=Path, default=HERE / "results")
    return options.parse_args()


def chosen(only: str, *, quick: bool) -> Sequence[str]:
    wanted = tuple(word.strip() for word in only.split(",") if word.strip())
    if wanted:
        return [name for name in CONTESTANTS if name.startswith(wanted)]
    return [name for name in CONTESTANTS if not quick or name in QUICK]


def one(name: str, where: str, rows: int | None, given: argparse.Namespace) -> report.Outcome:
    """Run a contestant in a process of its own."""
    environment = {**os.environ, **dict.fromkeys(THREADS, str(given.threads)), "OMP_WAIT_POLICY": "passive"}
    environment.setdefault("LANCE_LOG", "error")
    print(f"{name} …", end=" ", flush=True)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcome.json"
        command = [
            sys.executable,
            "-m",
            "_ann.worker",
            name,
            str(Path(where).resolve() if where != SYNTHETIC else where),
        ]
        for option in ("metric", "k", "threads", "rounds"):
            if (value := getattr(given, option)) is not None:
                command += [f"--{option}", str(value)]
        command += ["--join", str(given.self_join), "--out", str(out)]
        command += ["--rows", str(rows)] if rows else []
        try:
            done = subprocess.run(
                command,
                cwd=HERE,
                env=environment,
                check=False,
                timeout=LIMIT,
                stderr=subprocess.PIPE,
                text=True,
            )
            outcome: report.Outcome
            if out.exists():
                outcome = json.loads(out.read_text())
            else:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                outcome = failed(name, f"it failed with exit code {done.returncode}: {last}")
        except subprocess.TimeoutExpired:
            outcome = failed(name, f"it took more than {LIMIT} s")
    print(outcome["skipped"] or f"{time.perf_counter() - begun:.0f} s", flush=True)
    return outcome


def failed(name: str, why: str) -> report.Outcome:
    from _ann.measure import Outcome

    return Outcome(name, skipped=why).plain()


def cold_lines(data: Any, threads: int) -> list[dict[str, Any]]:
    try:
        lines = cold.run(data, threads=threads)
    except Skip as e:
        print(f"skipped cold queries: {e}")
        return []
    for line in lines:
        Console().print(
            f"cold, {line.name}: open {line.open_requests} requests, {line.open_kb:,.0f} kB, {line.open_ms:.0f} ms; "
            f"query {line.query_requests} requests, {line.query_kb:,.0f} kB, {line.query_ms:.0f} ms; recall {line.recall:.2f}"
        )
    return cold.plain(lines)


if __name__ == "__main__":
    sys.exit(main())
