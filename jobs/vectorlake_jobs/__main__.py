"""`python -m vectorlake_jobs knn-join …`: the commands `vectorlake job …`, as a script that cluster launchers start."""

from __future__ import annotations

import sys

from vectorlake.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["job"]
    main()
