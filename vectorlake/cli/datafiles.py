"""Files that people have, as streams of rows: Parquet, Arrow, CSV, JSON lines, numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.schema import listing


def open_data(name: str) -> Any:
    """A file, or a folder of Parquet files, as something that tables take; Parquet and CSV are streamed.

    A `.npy` file of shape [rows, dimension] is a column `vector` with a column `id` beside it.

    Raises:
        NotFoundError: no such file.
        InvalidInputError: a kind of file that is not known, or one that can't be read.
    """
    path = Path(name)
    if not path.exists():
        raise NotFoundError(f"there is no file {name}")
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in _OPENERS:
        raise InvalidInputError(
            f"can't tell what {name} is: a file's name must end with one of {listing(list(_OPENERS))}"
        )
    try:
        return _OPENERS[suffix](path)
    except (pa.ArrowException, OSError, ValueError) as e:
        if isinstance(e, InvalidInputError):
            raise
        raise InvalidInputError(f"{name} can't be read: {e}") from e


def _dataset(kind: str) -> Callable[[Path], Any]:
    def open_dataset(path: Path) -> Any:
        import pyarrow.dataset as ds

        return ds.dataset(path, format=kind).scanner().to_reader()

    return open_dataset


def _arrow(path: Path) -> Any:
    try:
        return pa.ipc.open_file(path).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(path)


def _json(path: Path) -> Any:
    import pyarrow.json

    return pyarrow.json.read_json(path)


def _numpy(path: Path) -> Any:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    if vectors.ndim != 2:
        raise InvalidInputError(f"{path} has shape {list(vectors.shape)}: vectors come as [rows, dimension]")
    return {"id": np.arange(len(vectors)), "vector": vectors}


_OPENERS: Final[Mapping[str, Callable[[Path], Any]]] = {
    ".parquet": _dataset("parquet"),
    ".csv": _dataset("csv"),
    ".arrow": _arrow,
    ".arrows": _arrow,
    ".feather": _arrow,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".npy": _numpy,
}
