"""Primary keys: hashed alike by every release, found in every kind of fragment, and never doubled."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

import vectorlake as vl
from vectorlake.errors import CorruptDataError
from vectorlake.metadata.snapshot import decode_snapshot, encode_snapshot
from vectorlake.plan import keys as plan_keys
from vectorlake.plan.key_ranges import KeyRanges
from vectorlake.plan.keys import KeyHashes, decode_segment, encode_segment, hash_keys
from vectorlake.table import key_segments
from vectorlake.table.context import Integrity
from vectorlake.table.key_segments import KeyCollector
from vectorlake.table.keys import GivenKeys, find_keys
from vectorlake.table.writer import FragmentWriter

NUMBERS = itertools.count()


@pytest.fixture
def lake() -> vl.Lake:
    return vl.connect(f"memory://keys-{next(NUMBERS)}")


def splitmix(z: int) -> int:
    mask = 2**64 - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def specified(*parts: int) -> int:
    """The hash as the specification tells it."""
    h = 0
    for part in parts:
        h = splitmix((h + part + 0x9E3779B97F4A7C15) % 2**64)
    return h


def test_hashes_are_those_of_the_specification() -> None:
    day = dt.date(2024, 5, 6)
    nanos = int(dt.datetime(2024, 5, 6, tzinfo=dt.UTC).timestamp()) * 10**9
    half = (2**61 - 1 + 1) // 2
    cases = [
        (pa.array([7], pa.int8()), 7),
        (pa.array([-1], pa.int64()), 2**64 - 1),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([True]), 1),
        (pa.array(["äb"]), xxhash.xxh3_64_intdigest("äb".encode())),
        (pa.array([b"\x00\x01"], pa.large_binary()), xxhash.xxh3_64_intdigest(b"\x00\x01")),
        (pa.array([b"abcd"], pa.binary(4)), xxhash.xxh3_64_intdigest(b"abcd")),
        (pa.array([decimal.Decimal("1.50")], pa.decimal128(9, 2)), 3 * half % (2**61 - 1)),
        (pa.array([decimal.Decimal("-1.5")], pa.decimal256(50, 4)), -3 * half % (2**61 - 1)),
        (pa.array([decimal.Decimal("0.00000001")]), pow(10**8, -1, 2**61 - 1)),
        (pa.array([day]), nanos),
        (pa.array([day], pa.date64()), nanos),
        (pa.array([nanos // 10**9], pa.timestamp("s")), nanos),
        (pa.array([nanos // 1000], pa.timestamp("us")), nanos),
        (pa.array([nanos], pa.timestamp("ns", "UTC")), nanos),
        (pa.array([-1], pa.timestamp("ms")), 2**64 - 10**6),
        (pa.array([5], pa.time32("s")), 5 * 10**9),
        (pa.array([7], pa.duration("us")), 7000),
    ]
    for array, part in cases:
        assert hash_keys([array]).tolist() == [specified(part)], array.type
    assert hash_keys([pa.array([1, 2]), pa.array(["a", "b"])]).tolist() == [
        specified(1, xxhash.xxh3_64_intdigest(b"a")),
        specified(2, xxhash.xxh3_64_intdigest(b"b")),
    ]
    examples = {
        0xE220A8397B1DCDAF: [pa.array([0])],
        0x2049015CB3EC742B: [pa.array([decimal.Decimal("1.50")])],
        0xA085CD2976159D71: [pa.array([7]), pa.array(["a"])],
    }
    page = Path(__file__).parents[2] / "docs" / "spec" / "format-v1.md"
    for expected, columns in examples.items():
        assert hash_keys(columns).tolist() == [expected]
        assert f"{expected:#X}".replace("0X", "0x") in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.binary(3), pa.int32(), pa.bool_()]
)
def test_slices_and_chunks_hash_as_wholes(kind: pa.DataType) -> None:
    values = {pa.int32(): [5, 6, 7, 8], pa.bool_(): [True, False, True, True]}.get(
        kind, ["abc", "def", "ghi", "jkl"]
    )
    array = pa.array(
        values
        if kind in (pa.int32(), pa.bool_())
        else [v.encode() for v in values]
        if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)
        else values,
        kind,
    )
    whole = hash_keys([array])
    assert hash_keys([array.slice(1, 2)]).tolist() == whole[1:3].tolist()
    assert hash_keys([pa.chunked_array([array.slice(0, 1), array.slice(1)])]).tolist() == whole.tolist()
    assert len(hash_keys([array.slice(0, 0)])) == 0


def test_a_segment_round_trips_and_finds_every_position_of_a_hash() -> None:
    hashes = np.array([9, 3, 9, 1], np.uint64)
    keys = decode_segment(encode_segment(KeyHashes.of(hashes)), "x")
    positions, which = keys.find(np.array([0, 1, 9, 10], np.uint64))
    assert sorted(zip(which.tolist(), positions.tolist(), strict=True)) == [(1, 3), (2, 0), (2, 2)]
    data = encode_segment(keys)
    assert data[:16] == struct.pack("<8sQ", b"VLKEYS01", 4)
    for bad in (b"", data[:-1], b"X" + data[1:]):
        with pytest.raises(CorruptDataError, match="key segment"):
            decode_segment(bad, "there")


@pytest.mark.parametrize("weak", [False, True], ids=["uniform", "clustered"])
def test_parts_of_a_remote_segment_tell_as_much_as_all_of_it(
    lake: vl.Lake, weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 60_000, np.uint64, endpoint=False)
    if weak:
        hashes >>= np.uint64(20)
    hashes[[5, 6, 7]] = hashes[4]
    segment = key_segments.write_segment(lake.store, hashes, new_id=lambda: "one")
    few = np.sort(np.concatenate([hashes[[4, 99]], np.array([0, 12345, 2**64 - 1], np.uint64)]))
    asked: list[int] = []
    whole = lake.store.get
    monkeypatch.setattr(type(lake.store), "get", lambda self, path: asked.append(1) or whole(path))
    held = key_segments.KeySegments(lake.store)
    positions, which = held.find(segment, few)
    assert len(asked) == weak, "chosen hashes lie elsewhere: then all is read"
    expected = KeyHashes.of(hashes).find(few)
    assert sorted(zip(which, positions, strict=True)) == sorted(zip(*expected[::-1], strict=True))
    assert sorted(positions.tolist()) == [4, 5, 6, 7, 99]
    lake.store.put(segment.path, whole(segment.path)[:-3])
    with pytest.raises(CorruptDataError, match="repair"):
        key_segments.KeySegments(lake.store).find(segment, hashes)


def test_key_ranges_never_exclude_a_key() -> None:
    words = ["user-1", "c", "user-", "user-10", "user-2\0", "", "userz", "a", "bÿ", "user-99999999999"]
    for shared in ("", "prefix/"):
        keys = [shared + word for word in words[:5]]
        ranges = KeyRanges(pa.array(keys))
        ends = [(shared + a, shared + b) for a in words for b in words if shared + a <= shared + b]
        ends += [("a", "b"), ("z", "zz"), ("prefix", "prefix"), ("prefix/", "prefix0")]
        told = ranges.meets(pa.array([a for a, _ in ends]), pa.array([b for _, b in ends]))
        truly = [any(a <= key <= b for key in keys) for a, b in ends]
        assert not [end for end, t, u in zip(ends, told, truly, strict=True) if u and not t]
        assert not told[ends.index(("z", "zz"))]
    assert KeyRanges(pa.array([5, 9])).meets(pa.array([6, 7, None]), pa.array([8, 9, 9])).tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.list_(pa.int64()), vl.vector(2), pa.struct([("a", pa.int64())]), vl.blob()]
)
def test_columns_that_cannot_identify_rows_are_refused(lake: vl.Lake, kind: pa.DataType) -> None:
    with pytest.raises(vl.InvalidInputError, match="can't be in a primary key"):
        lake.create_table("t", pa.schema([("id", kind)]), primary_key=["id"])
    assert not lake.exists("t")


def test_duplicates_and_nulls_in_the_data_are_refused_and_leave_nothing(lake: vl.Lake) -> None:
    twice = pa.table({"id": [1, 2, 1], "x": ["a", "b", "c"]})
    with pytest.raises(vl.InvalidInputError, match=r"1 .*in the data: \(id=1\).*rows 0 and 2"):
        lake.create_table("t", twice, primary_key=["id"])
    assert list(lake.store.list()) == []
    table = lake.create_table("t", twice.slice(0, 2), primary_key=["id"])
    before = {info.path for info in table.store.list()}
    for write in (table.append, table.overwrite):
        with pytest.raises(vl.InvalidInputError, match=r"\(id=7\)"):
            write({"id": [7, 7]})
        with pytest.raises(vl.InvalidInputError, match="'id' must not be null"):
            write({"id": [8, None]})
    with pytest.raises(vl.AlreadyExistsError, match=r"\(id=2\).*upsert"):
        table.append({"id": [5, 2]})
    assert {info.path for info in table.store.list() if "/m-" not in info.path} <= before
    assert table.version == 1


@pytest.mark.parametrize("segment_rows", [1, 10**9], ids=["segments", "columns"])
def test_concurrent_appends_never_double_a_key(
    lake: vl.Lake, segment_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", segment_rows)
    first = lake.create_table("t", pa.schema([("a", pa.string()), ("b", pa.int32())]), primary_key=["a", "b"])
    second = lake.table("t")
    first.append({"a": ["x", "y"], "b": [1, 1]})
    assert (next(first.view.fragments()).keys is None) == (segment_rows > 1)
    second.append({"a": ["x"], "b": [2]})
    with pytest.raises(vl.AlreadyExistsError, match=r"\(a='x', b=1\)"):
        second.append({"a": ["z", "x"], "b": [1, 1]})
    stale = lake.table("t")
    first.refresh().delete("a = 'y'")
    first.append({"a": ["y"], "b": [1]})
    with pytest.raises(vl.AlreadyExistsError, match=r"\(a='y', b=1\)"):
        stale.append({"a": ["y"], "b": [1]})
    assert first.count() == 3
    assert first.verify() == []


def test_a_restored_row_is_seen(lake: vl.Lake) -> None:
    table = lake.create_table("t", pa.table({"id": [1, 2]}), primary_key=["id"])
    table.delete("id = 1")
    stale = lake.table("t")
    table.restore(1)
    with pytest.raises(vl.AlreadyExistsError):
        stale.append({"id": [1]})


def test_transactions_check_keys_on_the_head(lake: vl.Lake) -> None:
    table = lake.create_table("t", pa.table({"id": [1, 2]}), primary_key=["id"])
    other = lake.table("t")

    def work() -> None:
        with table.transaction() as tx:
            tx.append({"id": [3]})
            tx.append({"id": [4]})
            other.append({"id": [4]})

    with pytest.raises(vl.AlreadyExistsError, match="id=4"):
        work()
    assert sorted(other.refresh().to_arrow()["id"].to_pylist()) == [1, 2, 4]


def test_key_columns_keep_what_makes_them_keys(lake: vl.Lake) -> None:
    table = lake.create_table("t", pa.table({"id": pa.array([1], pa.int32()), "x": [1]}), primary_key=["id"])
    with pytest.raises(vl.InvalidInputError, match="primary key"):
        table.drop_column("id")
    with pytest.raises(vl.InvalidInputError, match="can't allow nulls"):
        table.alter_column("id", nullable=True)
    with pytest.raises(vl.InvalidInputError, match="can't be in a primary key"):
        table.alter_column("id", type=pa.float64())
    table.alter_column("id", type=pa.int64())
    with pytest.raises(vl.AlreadyExistsError):
        table.append({"id": [1]})


def test_keys_of_a_column_that_was_widened_meanwhile_are_found(lake: vl.Lake) -> None:
    table = lake.create_table("t", pa.table({"id": pa.array([1], pa.int8())}), primary_key=["id"])
    stale = lake.table("t")
    table.alter_column("id", type=pa.int64())
    table.append({"id": [2**40, 7]})
    with pytest.raises(vl.AlreadyExistsError, match="id=7"):
        stale.append({"id": pa.array([7], pa.int8())})
    for wanted in (pa.array([7, 9], pa.int8()), pa.array([9, 7], pa.int64())):
        found = [match.rows.tolist() for match in find_keys(table.view, GivenKeys([wanted]))]
        assert found == [[wanted.to_pylist().index(7)]]


def test_older_clients_refuse_a_table_whose_keys_they_would_double(
    lake: vl.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.create_table("t", pa.table({"id": [1]}), primary_key=["id"])
    data = encode_snapshot(table.snapshot)
    monkeypatch.setattr("vectorlake.metadata.snapshot.SUPPORTED_FEATURES", frozenset())
    with pytest.raises(vl.UnsupportedError, match=r"primary-key.*upgrade"):
        decode_snapshot(data, "v1.json")


@pytest.mark.parametrize("segment_rows", [1, 10**9], ids=["segments", "columns"])
def test_finding_keys_equals_a_scan(
    lake: vl.Lake, segment_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", segment_rows)
    monkeypatch.setattr("vectorlake.table.keys._MORSEL", 7)
    monkeypatch.setattr("vectorlake.table.keys.SEGMENT_ROWS", 0)
    rng = np.random.default_rng(5)
    table = lake.create_table(
        "t", pa.schema([("id", pa.int64()), ("s", pa.string())]), primary_key=["s", "id"]
    )
    ids = rng.permutation(400)
    for part in np.array_split(ids, 4):
        table.append({"id": part, "s": [f"k{i % 7}" for i in part]})
    table.delete("id % 5 = 0")
    wanted = rng.permutation(800)[:300]
    columns = [pa.array([f"k{i % 7}" for i in wanted]), pa.array(wanted)]
    found = set()
    for match in find_keys(table.view, GivenKeys(columns)):
        held = match.reader.take(table.view.select(["id"]), match.positions).column(0)
        assert held.to_pylist() == wanted[match.rows].tolist()
        found |= set(held.to_pylist())
    live = set(table.to_arrow()["id"].to_pylist())
    assert found == {int(i) for i in wanted} & live


def test_hash_collisions_are_told_apart(lake: vl.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(columns: list[pa.Array]) -> np.ndarray:
        return np.zeros(len(columns[0]), np.uint64)

    monkeypatch.setattr("vectorlake.table.keys.hash_keys", weak)
    monkeypatch.setattr("vectorlake.table.key_segments.hash_keys", weak)
    table = lake.create_table("t", pa.table({"id": [1, 2, 3]}), primary_key=["id"])
    table.append({"id": [4, 5]})
    with pytest.raises(vl.AlreadyExistsError, match="id=4"):
        table.append({"id": [6, 4]})
    assert plan_keys.SEGMENT_ROWS > 1


@pytest.mark.parametrize("failing", ["segment", "fragment"])
@pytest.mark.parametrize("place", ["memory", "local"])
def test_a_write_that_fails_half_way_leaves_nothing(
    failing: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", 1)
    lake = vl.connect(tmp_path if place == "local" else f"memory://keys-{next(NUMBERS)}")
    properties = {"write.fragment-rows": "2"}
    table = lake.create_table("t", pa.schema([("id", pa.int64())]), primary_key=["id"], properties=properties)
    before = {info.path for info in table.store.list()}
    calls = itertools.count()

    def third(work: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            result = work(*args, **kwargs)
            if next(calls) == 2:
                raise vl.StorageError("no space left")
            return result

        return call

    if failing == "segment":
        monkeypatch.setattr(KeyCollector, "finish", third(KeyCollector.finish))
    else:
        monkeypatch.setattr(FragmentWriter, "close", third(FragmentWriter.close))
    with pytest.raises(vl.StorageError, match="space"):
        table.append({"id": range(9)})
    left = {info.path for info in table.store.list()} - before
    assert len(left) == (failing == "segment"), "only what the failing call itself had written"
    table.append({"id": range(9)})
    assert table.count() == 9
    assert next(table.view.fragments()).keys is not None


@pytest.mark.parametrize("place", ["memory", "local"])
def test_damaged_segments_are_told_of(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_segments, "SEGMENT_ROWS", 1)
    where = tmp_path if place == "local" else f"memory://keys-{next(NUMBERS)}"
    lake = vl.connect(where)
    table = lake.create_table("t", pa.table({"id": range(50)}), primary_key=["id"])
    segment = next(table.view.fragments()).keys
    assert segment is not None
    assert table.verify() == []
    good = table.store.get(segment.path)
    other = encode_segment(KeyHashes.of(np.arange(50, dtype=np.uint64)))
    for bad in (good[:-1], b"X" + good[1:], other, None):
        table.store.delete([segment.path])
        if bad is not None:
            table.store.put(segment.path, bad)
        assert [finding.path for finding in lake.table("t").verify()] == [segment.path]
        # On disk only a comparison of checksums tells another file of the same length.
        integrity = Integrity.CHECKSUM if bad is other else Integrity.LENGTH
        with pytest.raises(CorruptDataError, match="repair"):
            vl.connect(where, integrity=integrity).table("t").append({"id": [7]})
    table.store.put(segment.path, good)
    with pytest.raises(vl.AlreadyExistsError):
        lake.table("t").append({"id": [7]})


def test_rows_that_were_moved_are_still_found(lake: vl.Lake) -> None:
    table = lake.create_table("t", pa.table({"id": [1, 2, 3], "x": [0, 0, 0]}), primary_key=["id"])
    stale = lake.table("t")
    table.update({"x": 1}, where="id < 3", mode="rows")
    with pytest.raises(vl.AlreadyExistsError, match=r"\(id=2\)"):
        stale.append({"id": [2]})
    stale.append({"id": [4]})
    assert sorted(stale.to_arrow()["id"].to_pylist()) == [1, 2, 3, 4]


def test_tables_of_the_first_release_only_name_a_key(lake: vl.Lake) -> None:
    store = lake.create_table("t", pa.table({"id": [1]})).store
    path = next(info.path for info in store.list("metadata") if info.path.endswith(".json"))
    store.put(path, store.get(path).replace(b'"version": 1,', b'"version": 1, "primary_key": [1],'))
    table = lake.table("t")
    assert table.snapshot.primary_key == (1,)
    table.append({"id": [1]})
    assert table.count() == 2
