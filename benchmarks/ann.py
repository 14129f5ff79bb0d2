"""Nearest-neighbour indexes: ours through a table on disk, and their peers, one process at a time in the same run.

    python benchmarks/ann.py [--data PATH …] [--rows N] [--only NAMES] [--quick] [--self-join N]

Reads ann-benchmarks HDF5 files, or folders with `vectors.npy`, `query_vectors.npy` and perhaps `neighbors.npy`; without
`--data` the set `pypi_minilm` in the folder named by VECTORLAKE_BENCH_DATA or in `../shared/data` beside the checkout, and
where that is not there, random clustered vectors. Measures build time, size, recall@k against batched queries a second
over each index's own settings, single queries one after another on one thread, and on request a self-join. Writes JSON
and plots into `benchmarks/results`. Peers that can't run are skipped, and the reason is told. Ends with 0 if all of ours
ran, 1 if not, 2 for wrong arguments and data that can't be read, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _ann import datasets, report
from _ann.measure import Outcome
from _ann.options import SHARED, among, positive
from _ann.peers import CONTESTANTS, OURS
from _ann.protocol import Data, Unreadable

HERE = Path(__file__).resolve().parent
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
    names = given.only or [name for name in CONTESTANTS if not given.quick or name in QUICK]
    rows = given.rows or (QUICK_ROWS if given.quick else None)
    statuses = []
    for where in given.data or [str(SHARED) if SHARED.exists() else datasets.SYNTHETIC]:
        try:
            data = datasets.read(where, rows=rows, metric=given.metric, k=given.k)
        except Unreadable as e:
            print(f"ann.py: {e}", file=sys.stderr)
            statuses.append(2)
            continue
        if given.self_join:
            data = datasets.with_join(data, given.self_join, given.k)
        statuses.append(compare(data, names, given))
        if statuses[-1] == 130:
            break
    return max(statuses)


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--data", action="append", metavar="PATH", help="a file or folder; may be given several times"
    )
    options.add_argument("--rows", type=positive, help="only the first rows; the truth is computed anew")
    options.add_argument("--metric", choices=["l2", "cosine", "dot"], help="other than the file's own")
    options.add_argument("--k", type=positive, default=10, help="neighbours of each query; %(default)s")
    options.add_argument("--threads", type=positive, default=min(2, os.cpu_count() or 1), help="%(default)s")
    options.add_argument(
        "--rounds", type=positive, default=3, help="the quickest of so many counts; %(default)s"
    )
    options.add_argument(
        "--only",
        type=among(CONTESTANTS),
        metavar="NAMES",
        help=f"comma-separated, by beginning, among {', '.join(CONTESTANTS)}",
    )
    options.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROWS:,} rows and few peers: a minute or two"
    )
    options.add_argument(
        "--self-join", type=positive, metavar="ROWS", help="also look up so many rows among all"
    )
    options.add_argument(
        "--python",
        type=interpreter,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="run a contestant with another interpreter, which has numpy and what the contestant needs",
    )
    options.add_argument(
        "--limit",
        type=positive,
        default=LIMIT,
        metavar="SECONDS",
        help="for each contestant; %(default)s",
    )
    options.add_argument(
        "--out", type=Path, default=HERE / "results", metavar="FOLDER", help="benchmarks/results"
    )
    return options.parse_args()


def interpreter(word: str) -> tuple[str, str]:
    name, _, path = word.partition("=")
    found = shutil.which(path)
    if name not in CONTESTANTS or found is None:
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=PATH of a contestant and a program")
    return name, found


def compare(data: Data, names: Sequence[str], given: argparse.Namespace) -> int:
    """Run all over one set and report; after Ctrl-C, what was measured until then."""
    outcomes: list[report.Outcome] = []
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="ann-") as folder:
        datasets.save(data, Path(folder))
        try:
            outcomes.extend(one(name, Path(folder), given) for name in names)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            interrupted = True
    title = (
        f"{data.name}: {len(data.base):,} × {data.base.shape[1]} {data.element}, {data.metric}, k = {given.k}, "
        f"{given.threads} threads"
    )
    report.show(outcomes, title)
    if interrupted:
        return 130
    facts: dict[str, Any] = {
        "data": data.name,
        "metric": data.metric,
        "k": given.k,
        "threads": given.threads,
        "machine": platform.processor() or platform.machine(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for path in report.save(outcomes, facts, given.out, data.name):
        print(f"wrote {path}")
    return int(any(outcome["skipped"] for outcome in outcomes if outcome["name"] in OURS))


def one(name: str, data: Path, given: argparse.Namespace) -> report.Outcome:
    """Run a contestant in a process of its own."""
    environment = {**os.environ, **dict.fromkeys(THREADS, str(given.threads)), "OMP_WAIT_POLICY": "passive"}
    environment.setdefault("LANCE_LOG", "error")
    print(f"{name} …", end=" ", flush=True)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ann-") as folder:
        out = Path(folder) / "outcome.json"
        command = [dict(given.python).get(name, sys.executable), "-m", "_ann.worker", name, str(data), folder]
        for option in ("k", "threads", "rounds"):
            command += [f"--{option}", str(getattr(given, option))]
        try:
            done = subprocess.run(
                command,
                cwd=HERE,
                env=environment,
                check=False,
                timeout=given.limit,
                stderr=subprocess.PIPE,
                text=True,
            )
        except subprocess.TimeoutExpired:
            outcome = failed(name, f"it took more than {given.limit} s")
        else:
            if out.exists():
                outcome = json.loads(out.read_text())
            else:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                outcome = failed(name, f"it failed with exit code {done.returncode}: {last}")
    print(outcome["skipped"] or f"{time.perf_counter() - begun:.0f} s", flush=True)
    return outcome


def failed(name: str, why: str) -> report.Outcome:
    return Outcome(name, skipped=why).plain()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
