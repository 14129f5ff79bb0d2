"""Arrays in index files: what is read is what was written, in as few bytes as it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorlake.index.arrays import ArrayFile, write_arrays
from vectorlake.metadata.index import IndexFile
from vectorlake.store import open_store
from vectorlake.store.protocol import Store

NAME = "index/a.arrow"


def written(folder: Path, arrays: dict[str, np.ndarray], cuts: dict[str, np.ndarray]) -> IndexFile:
    (folder / "index").mkdir()
    return write_arrays(folder / NAME, arrays, cuts, name=NAME)


def stores(folder: Path) -> list[Store]:
    """The local folder, and the same file where nothing can be mapped."""
    far = open_store(f"memory://{folder.name}")
    far.put(NAME, (folder / NAME).read_bytes())
    return [open_store(str(folder)), far]


@pytest.mark.parametrize(
    ("numbers", "stored"),
    [
        ([-1, 5, 200], "|u1"),
        ([1 << 40, (1 << 40) + 300], "<u2"),
        ([-1, (1 << 32) - 3], "<u4"),
        ([-1, 1 << 33], "<i8"),
        ([-(1 << 63), (1 << 63) - 1], "<i8"),
        ([], "<i8"),
    ],
)
def test_integers_take_the_bytes_that_their_range_needs(
    tmp_path: Path, numbers: list[int], stored: str
) -> None:
    ids = np.array(numbers, np.int64)
    file = written(tmp_path, {"ids": ids}, {})
    assert file.arrays["ids"].dtype == stored
    for store in stores(tmp_path):
        found = ArrayFile(store, file)["ids"]
        assert found.dtype == np.int64
        assert found.tolist() == numbers


@given(
    ids=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=20),
    parts=st.lists(st.integers(0, 5), min_size=1, max_size=6),
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], parts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    bounds = np.concatenate([[0], np.cumsum(parts)])
    blocks = np.arange(int(bounds[-1]) * 3, dtype=np.uint8).reshape(-1, 3)
    arrays = {"blocks": blocks, "ids": np.array(ids, np.int64), "scale": np.array([1.5])}
    file = written(folder, arrays, {"blocks": bounds})
    for store in stores(folder):
        opened = ArrayFile(store, file)
        for name, array in arrays.items():
            assert opened[name].dtype == array.dtype
            assert np.array_equal(opened[name], array)
        wanted = list(range(len(parts)))
        for part, rows in zip(wanted, opened.parts("blocks", wanted), strict=True):
            assert np.array_equal(rows, blocks[bounds[part] : bounds[part + 1]])
