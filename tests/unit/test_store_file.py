"""Objects as seekable files: the same bytes as a file on disk, with few requests."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorlake.errors import CorruptDataError, NotFoundError
from vectorlake.store import open_store
from vectorlake.store.file import RangeFile, open_input
from vectorlake.testing.faults import FaultyStore

DATA = os.urandom(1_000_000)
STORE = FaultyStore(open_store("memory://"))
STORE.put("o", DATA)

positions = st.integers(0, len(DATA) + 10)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), positions, st.just(io.SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(-2_000, 2_000), st.just(io.SEEK_CUR)),
        st.tuples(st.just("seek"), st.integers(-300_000, 0), st.just(io.SEEK_END)),
        st.tuples(st.just("read"), st.integers(0, 600_000), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_behaves_as_a_file_in_memory(steps: list[tuple[str, int, int]]) -> None:
    ours, model = RangeFile(STORE, "o", len(DATA)), io.BytesIO(DATA)
    for what, number, whence in steps:
        if what == "read":
            assert ours.read(number) == model.read(number)
        elif whence == io.SEEK_CUR and model.tell() + number < 0:
            continue
        else:
            assert ours.seek(number, whence) == model.seek(number, whence)
        assert ours.tell() == model.tell()
    ours.seek(len(DATA) - 5_000)
    assert ours.read() == DATA[-5_000:]


def test_readinto_and_readall() -> None:
    file = RangeFile(STORE, "o", len(DATA))
    buffer = bytearray(10)
    assert file.readinto(buffer) == 10
    assert bytes(buffer) == DATA[:10]
    assert file.readall() == DATA[10:]
    assert file.read(5) == b""


def test_a_footer_and_what_precedes_it_cost_one_request() -> None:
    file = RangeFile(STORE, "o", len(DATA))
    before = len(STORE.trace)
    file.seek(-8, io.SEEK_END)
    file.read(8)
    file.seek(-50_000, io.SEEK_END)
    assert file.read(49_000) == DATA[-50_000:-1_000]
    assert len(STORE.trace) - before == 1


def test_small_reads_onward_cost_one_request() -> None:
    file = RangeFile(STORE, "o", len(DATA))
    before = len(STORE.trace)
    assert b"".join(file.read(100) for _ in range(1_000)) == DATA[:100_000]
    assert len(STORE.trace) - before == 1


def test_an_object_that_was_cut() -> None:
    store = open_store("memory://")
    store.put("o", DATA[:400_000])
    for start, length in ((0, 500_000), (399_990, 20), (450_000, 10)):
        file = RangeFile(store, "o", len(DATA))
        file.seek(start)
        with pytest.raises(CorruptDataError, match="/o ends at byte"):
            file.read(length)


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def uri_and_options(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        return server.fresh_uri(), server.storage_options
    return (str(tmp_path) if request.param == "local" else "memory://files"), {}


def test_parquet_reads_through_it(uri_and_options: tuple[str, dict[str, str]]) -> None:
    store = open_store(*uri_and_options)
    table = pa.table({"a": range(200_000), "b": [str(n) for n in range(200_000)]})
    with store.staged("t.parquet") as local:
        pq.write_table(table, local, row_group_size=50_000)
    size = store.head("t.parquet").size
    for promised in (None, size):
        file = pq.ParquetFile(open_input(store, "t.parquet", promised))
        assert file.read_row_group(2, ["a"])["a"].to_pylist() == list(range(100_000, 150_000))
        assert file.read().equals(table)
    with pytest.raises(NotFoundError, match="absent"):
        open_input(store, "absent")
