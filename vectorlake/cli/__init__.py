"""The command `vectorlake`: tables of a lake from a terminal, for people and, with --json, for programs."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process and exit with its code (docs/cli.md)."""
    from vectorlake.cli.app import app

    app()
