"""Runs one contestant in this process, in a folder into which it writes `outcome.json`: `python -m _ann.worker NAME …`.

Needs numpy and what the contestant needs, so that it may be another interpreter than the one that began the run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from _ann import datasets, measure
from _ann.peers import contestant
from _ann.protocol import Skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name")
    options.add_argument("data", type=Path, help="a folder that datasets.save wrote")
    options.add_argument("folder", type=Path, help="of its own, removed by the caller")
    options.add_argument("--k", type=int, required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--rounds", type=int, required=True)
    given = options.parse_args()
    try:
        one = contestant(given.name)
        effort = measure.Effort(given.k, given.threads, given.rounds)
        outcome = measure.run(one, datasets.load(given.data), given.name, given.folder, effort)
    except Skip as e:
        outcome = measure.Outcome(given.name, skipped=str(e))
    (given.folder / "outcome.json").write_text(json.dumps(outcome.plain()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
