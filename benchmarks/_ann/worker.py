"""Runs one contestant in this process and prints its outcome as JSON: `python -m _ann.worker NAME DATA …`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from _ann import measure
from _ann.datasets import read
from _ann.peers import contestant
from _ann.protocol import Skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name")
    options.add_argument("data", help="a file, a folder, or synthetic")
    options.add_argument("--rows", type=int)
    options.add_argument("--metric")
    options.add_argument("--k", type=int, default=10)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--join", type=int, default=0)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    try:
        one = contestant(given.name)
        data = read(given.data, rows=given.rows, metric=given.metric)
        with tempfile.TemporaryDirectory(prefix="ann-") as folder:
            effort = measure.Effort(given.k, given.threads, given.rounds, given.join)
            outcome = measure.run(one, data, given.name, Path(folder), effort)
    except Skip as e:
        outcome = measure.Outcome(given.name, skipped=str(e))
    given.out.write_text(json.dumps(outcome.plain()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
