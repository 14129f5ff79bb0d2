"""What the programs of the index benchmark share of their command lines."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from pathlib import Path

_DATA = Path(os.environ.get("VECTORLAKE_BENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SHARED = _DATA / "pypi_minilm"
"""The set that is read where none is named; it is not part of the repository."""


def positive(word: str) -> int:
    """A whole number from 1."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return int(word)


def among(names: Collection[str]) -> Callable[[str], list[str]]:
    """Some of the names, told by how they begin."""

    def chosen(words: str) -> list[str]:
        wanted = [word.strip() for word in words.split(",") if word.strip()]
        for word in wanted:
            if not any(name.startswith(word) for name in names):
                raise argparse.ArgumentTypeError(
                    f"no contestant begins with {word!r}; there are {', '.join(names)}"
                )
        if not wanted:
            raise argparse.ArgumentTypeError("it names no contestant")
        return [name for name in names if name.startswith(tuple(wanted))]

    return chosen
