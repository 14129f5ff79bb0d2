"""Query vectors as typed on the command line: JSON, a file, or a row of the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from vectorlake.table.table import Table


def read_queries(source: str) -> Any:
    """One vector or many: from JSON text, from a `.npy` or `.json` file, or from standard input for `-`.

    Raises:
        InvalidInputError: neither JSON nor such a file.
        NotFoundError: a file that isn't there.
    """
    text = source.strip()
    if text == "-":
        return _parse(sys.stdin.read(), "standard input")
    if text.startswith("["):
        return _parse(text, "--query")
    path = Path(text.removeprefix("@"))
    if path.suffix not in (".npy", ".json"):
        raise InvalidInputError(
            f"--query takes a vector as JSON, such as '[0.1, 0.2]', or a .npy or .json file, not {source!r}"
        )
    if not path.is_file():
        raise NotFoundError(
            f"there is no file {path}: --query takes a vector as JSON, or a .npy or .json file"
        )
    if path.suffix == ".json":
        return _parse(path.read_text(encoding="utf-8"), str(path))
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:
        raise InvalidInputError(f"{path} is no .npy file of numbers: {e}") from e


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise InvalidInputError(
            f"the query vector in {where} is no JSON ({e}): write it like [0.1, 0.2]"
        ) from e


def vector_of_row(table: Table, row_id: int, column: str) -> pa.Array:
    """The vector that a row has, as it is stored.

    Raises:
        NotFoundError: no live row of that id.
        InvalidInputError: the row has none.
    """
    vectors = table.take([row_id], [column]).column(0)
    if vectors.null_count:
        raise InvalidInputError(f"row {row_id} has no vector in column {column!r}, so nothing is near it")
    return vectors
