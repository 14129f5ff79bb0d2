"""A cold single query by an index on an S3 server: requests, trips and bytes of ours and of Lance, in the same run.

    python benchmarks/cold_query.py [--data PATH] [--rows N] [--queries N] [--only NAMES]

Puts a set and its indexes into a real S3 server on this machine and asks each query of a new process, which opens the
table and searches through a proxy that counts. A trip is counted when a request is sent while none is under way. Each
contestant is asked with several efforts, and compared at equal recall. Reads sets as ann.py does. Writes JSON into
`benchmarks/results`. Ends with 0; 1 if a contestant is missing, 2 for wrong arguments and data that can't be read, 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from _ann import cold, datasets
from _ann.options import SHARED, among, positive
from _ann.protocol import Skip, Unreadable
from rich.console import Console
from rich.table import Table as Grid

HERE = Path(__file__).resolve().parent


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--data", metavar="PATH", default=str(SHARED) if SHARED.exists() else datasets.SYNTHETIC
    )
    options.add_argument("--rows", type=positive, help="only the first rows; the truth is computed anew")
    options.add_argument("--metric", choices=["l2", "cosine", "dot"], help="other than the file's own")
    options.add_argument("--k", type=positive, default=10, help="neighbours of each query; %(default)s")
    options.add_argument("--queries", type=positive, default=10, help="%(default)s")
    options.add_argument("--threads", type=positive, default=min(2, os.cpu_count() or 1), help="%(default)s")
    options.add_argument(
        "--only",
        type=among(cold.SETTINGS),
        default=list(cold.SETTINGS),
        metavar="NAMES",
        help=f"comma-separated, by beginning, among {', '.join(cold.SETTINGS)}",
    )
    options.add_argument(
        "--out", type=Path, default=HERE / "results", metavar="FOLDER", help="benchmarks/results"
    )
    given = options.parse_args()
    try:
        data = datasets.read(given.data, rows=given.rows, metric=given.metric, k=given.k)
    except Unreadable as e:
        print(f"cold_query.py: {e}", file=sys.stderr)
        return 2
    queries = min(given.queries, len(data.queries))
    lines: list[cold.Cold] = []
    try:
        for line in cold.run(data, given.only, queries=queries, k=given.k, threads=given.threads):
            lines.append(line)
            print(f"{line.name} {line.setting}: recall {line.recall:.3f}", flush=True)
    except (Skip, ImportError) as e:
        print(f"cold_query.py: {e}", file=sys.stderr)
        return 1
    title = f"{data.name}, {data.metric}, k = {given.k}: medians of {queries} cold queries, the table's opening included"
    show(lines, title)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"cold-{data.name}.json"
    path.write_text(
        json.dumps({"data": data.name, "k": given.k, "lines": [asdict(x) for x in lines]}, indent=1)
    )
    print(f"wrote {path}")
    return 0


def show(lines: list[cold.Cold], title: str) -> None:
    """Print all lines; a peer's with how much more it takes than ours of no less recall, where there is one."""
    grid = Grid(title=title, caption=r"\[n×]: as many times what ours takes at no less recall")
    for column in ("index", "effort"):
        grid.add_column(column)
    for column in ("recall", "requests", "trips", "kB", "ms"):
        grid.add_column(column, justify="right")
    ours = [line for line in lines if line.name.startswith("vectorlake")]
    for line in lines:
        better = [one for one in ours if one.recall >= line.recall and line not in ours]
        best = min(better, key=lambda one: one.kb, default=None)

        def cell(name: str, line: cold.Cold = line, best: cold.Cold | None = best) -> str:
            value = getattr(line, name)
            ratio = "" if best is None else rf" \[{value / max(getattr(best, name), 1):.1f}×]"
            return f"{value:,.0f}{ratio}"

        shown = [cell(name) for name in ("requests", "trips", "kb", "ms")]
        grid.add_row(line.name, line.setting, f"{line.recall:.3f}", *shown)
    Console(width=None if Console().is_terminal else 140).print(grid)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
