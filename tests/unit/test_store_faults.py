"""The faulty store: each fault does what it says, at the call it is told, the same way each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vectorlake.errors import AlreadyExistsError, StorageError, VectorlakeError
from vectorlake.store import Store, open_store
from vectorlake.testing.clocks import ManualClock, SequentialIds
from vectorlake.testing.faults import Fault, FaultyStore, Killed, fault_at, random_faults


@pytest.fixture(params=["local", "memory"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path if request.param == "local" else "memory://")


def stage(store: FaultyStore) -> None:
    with store.staged("o") as local:
        local.write_bytes(b"1")


WRITES: dict[str, Callable[[FaultyStore], None]] = {
    "put": lambda store: store.put("o", b"1"),
    "put_new": lambda store: store.put_new("o", b"1"),
    "staged": stage,
}


@pytest.mark.parametrize(
    ("fault", "error", "applied"),
    [
        (Fault.FAIL_BEFORE, StorageError, False),
        (Fault.FAIL_AFTER, StorageError, True),
        (Fault.KILL_BEFORE, Killed, False),
        (Fault.KILL_AFTER, Killed, True),
    ],
)
@pytest.mark.parametrize("write", WRITES)
def test_fault_before_or_after(
    inner: Store, write: str, fault: Fault, error: type[BaseException], applied: bool
) -> None:
    store = FaultyStore(inner, fault_at(0, fault, method=write))
    with pytest.raises(error):
        WRITES[write](store)
    assert [info.path for info in inner.list()] == (["o"] if applied else [])
    if error is Killed:
        with pytest.raises(Killed):
            store.child("x").get("o")
    else:
        store.get("o") if applied else WRITES[write](store)
        assert inner.get("o") == b"1"


def test_own_write_exists(inner: Store) -> None:
    store = FaultyStore(inner, fault_at(1, Fault.OWN_WRITE_EXISTS, method="put_new"))
    store.put_new("a", b"1")
    with pytest.raises(AlreadyExistsError):
        store.put_new("b", b"2")
    assert inner.get("b") == b"2"


def test_delay(inner: Store) -> None:
    clock = ManualClock(step_ms=0)
    store = FaultyStore(inner, fault_at(0, Fault.DELAY, path_part="b"), delay=lambda: clock.advance(50))
    started = clock()
    store.put("a", b"1")
    assert clock() == started
    store.put("b", b"1")
    assert clock() == started + 50


def test_a_killed_stage_leaves_its_temporary_file(tmp_path: Path) -> None:
    inner = open_store(tmp_path)
    with pytest.raises(Killed):
        stage(FaultyStore(inner, fault_at(0, Fault.KILL_BEFORE)))
    assert list(inner.list()) == []
    leftovers = [info.path for info in inner.leftovers()]
    assert len(leftovers) == 1
    inner.delete(leftovers)
    assert list(inner.leftovers()) == []


def test_deletes_may_stop_in_between(inner: Store) -> None:
    for name in "abc":
        inner.put(name, b"1")
    with pytest.raises(Killed):
        FaultyStore(inner, fault_at(1, Fault.KILL_BEFORE, method="delete")).delete("abc")
    assert [info.path for info in inner.list()] == ["b", "c"]


def test_the_trace_names_whole_paths(inner: Store) -> None:
    store = FaultyStore(inner)
    store.child("ns").child("t").put("o", b"1")
    list(store.list("ns"))
    assert [(call.number, call.method, call.path) for call in store.trace] == [
        (0, "put", "ns/t/o"),
        (1, "list", "ns"),
    ]


def run(seed: int) -> list[tuple[str, str, Fault | None]]:
    rates = {Fault.FAIL_BEFORE: 0.2, Fault.FAIL_AFTER: 0.2, Fault.OWN_WRITE_EXISTS: 0.2}
    store = FaultyStore(open_store("memory://"), random_faults(seed, rates))
    ids = SequentialIds()
    for _ in range(60):
        try:
            store.put_new(ids(), b"1")
        except VectorlakeError:
            continue
    return [(call.method, call.path, call.fault) for call in store.trace]


def test_a_seed_replays() -> None:
    assert run(7) == run(7)
    assert run(7) != run(8)
    assert {fault for _, _, fault in run(7)} == {
        None,
        Fault.FAIL_BEFORE,
        Fault.FAIL_AFTER,
        Fault.OWN_WRITE_EXISTS,
    }
