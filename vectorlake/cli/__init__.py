"""The command `vectorlake`: tables of a lake from a terminal, for people and, with --json, for programs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code (docs/cli.md)."""
    try:
        from vectorlake.cli.app import app
    except KeyboardInterrupt:
        # Loading takes long enough to be interrupted, and nothing was begun yet.
        sys.exit(130)
    app()
