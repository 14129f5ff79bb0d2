"""A store that fails on purpose, the same way each time: for simulations, and to test what a crash leaves
behind."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from vectorlake.errors import AlreadyExistsError, StorageError
from vectorlake.store.local import TEMPORARY_PREFIX
from vectorlake.store.protocol import ObjectInfo, Store

T = TypeVar("T")


class Killed(BaseException):
    """The process "died" here. Not an `Exception`, so that no handler of the code under test survives it."""


class Fault(Enum):
    """What may happen to one call."""

    FAIL_BEFORE = "fail before it is applied"
    FAIL_AFTER = "fail after it was applied: the reply is lost"
    OWN_WRITE_EXISTS = (
        "put_new is applied, its retry finds the object: AlreadyExistsError for one's own write"
    )
    DELAY = "wait before the call"
    KILL_BEFORE = "the process dies before it is applied"
    KILL_AFTER = "the process dies after it was applied"


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call: its number from 0, the method, the path (relative to the outermost store), its
    fault."""

    number: int
    method: str
    path: str
    fault: Fault | None


Schedule = Callable[[int, str, str], "Fault | None"]
"""Decides the fault of a call from its number, method and path. Called under a lock, in call order."""


def no_faults(number: int, method: str, path: str) -> Fault | None:
    """The schedule under which a `FaultyStore` is its inner store."""
    return None


def fault_at(number: int, fault: Fault, *, method: str | None = None, path_part: str = "") -> Schedule:
    """A schedule with one fault: at the `number`-th call (from 0) among those of `method`, if given, whose
    path holds `path_part`."""
    seen = 0

    def schedule(_number: int, called: str, path: str) -> Fault | None:
        nonlocal seen
        if (method is not None and called != method) or path_part not in path:
            return None
        seen += 1
        return fault if seen - 1 == number else None

    return schedule


def random_faults(seed: int, rates: dict[Fault, float]) -> Schedule:
    """A schedule that draws each call's fault with the given probabilities; the same for the same seed and
    calls."""
    rng = random.Random(seed)

    def schedule(number: int, method: str, path: str) -> Fault | None:
        draw = rng.random()
        for fault, rate in rates.items():
            if draw < rate:
                return fault
            draw -= rate
        return None

    return schedule


@dataclass
class _State:
    schedule: Schedule
    delay: Callable[[], None]
    trace: list[Call]
    lock: threading.Lock
    dead: bool = False


class FaultyStore:
    """`inner` with faults by `schedule`; every call is recorded in `trace`.

    Once killed, every later call on it and its children raises `Killed`: wrap `inner` anew to be the next
    process. `delay` is what a `DELAY` does (nothing by default; a simulation passes a step of its scheduler).
    """

    def __init__(
        self,
        inner: Store,
        schedule: Schedule = no_faults,
        *,
        delay: Callable[[], None] = lambda: None,
        _state: _State | None = None,
        _prefix: str = "",
    ) -> None:
        self._inner = inner
        self._state = _state or _State(schedule, delay, [], threading.Lock())
        self._prefix = _prefix

    @property
    def inner(self) -> Store:
        """The store underneath, without faults."""
        return self._inner

    @property
    def trace(self) -> Sequence[Call]:
        """The calls so far, in order, of this store and its children."""
        return self._state.trace

    @property
    def uri(self) -> str:
        return self._inner.uri

    @property
    def storage_options(self) -> dict[str, str]:
        return self._inner.storage_options

    def child(self, path: str) -> FaultyStore:
        return FaultyStore(self._inner.child(path), _state=self._state, _prefix=f"{self._prefix}{path}/")

    def local_path(self, path: str) -> Path | None:
        return self._inner.local_path(path)

    def get(self, path: str) -> bytes:
        return self._call("get", path, lambda: self._inner.get(path))

    def get_range(self, path: str, start: int, length: int) -> bytes:
        return self._call("get_range", path, lambda: self._inner.get_range(path, start, length))

    def get_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._call("get_ranges", path, lambda: self._inner.get_ranges(path, ranges))

    def head(self, path: str) -> ObjectInfo:
        return self._call("head", path, lambda: self._inner.head(path))

    def put(self, path: str, data: bytes) -> None:
        self._call("put", path, lambda: self._inner.put(path, data))

    def put_new(self, path: str, data: bytes) -> None:
        self._call("put_new", path, lambda: self._inner.put_new(path, data))

    @contextlib.contextmanager
    def staged(self, path: str) -> Iterator[Path]:
        fault = self._begin("staged", path)
        with self._inner.staged(path) as local:
            try:
                yield local
                # The upload or rename comes next: a fault "before" leaves nothing under the path.
                self._before(fault, "staged", path)
            except Killed:
                self._keep_leftover(local, path)
                raise
        self._after(fault, "staged", path)

    def _keep_leftover(self, local: Path, path: str) -> None:
        # A process that dies does not tidy up, but an exception on its way through `inner` does.
        target = self._inner.local_path(path)
        if target is not None and local.exists():
            os.link(local, target.parent / f"{TEMPORARY_PREFIX}killed-{len(self._state.trace)}-{target.name}")

    def sync_folders(self, paths: Iterable[str]) -> None:
        listed = [*paths]
        self._call("sync_folders", ",".join(listed), lambda: self._inner.sync_folders(listed))

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        yield from self._call("list", prefix, lambda: self._inner.list(prefix, start_after))

    def leftovers(self, prefix: str = "") -> Iterator[ObjectInfo]:
        yield from self._call("leftovers", prefix, lambda: self._inner.leftovers(prefix))

    def delete(self, paths: Iterable[str]) -> None:
        # One by one, since a crash may come between any two.
        for path in paths:
            self._call("delete", path, functools.partial(self._inner.delete, [path]))

    def _call(self, method: str, path: str, action: Callable[[], T]) -> T:
        fault = self._begin(method, path)
        self._before(fault, method, path)
        result = action()
        self._after(fault, method, path)
        return result

    def _check_alive(self) -> None:
        if self._state.dead:
            raise Killed("this store's process was killed")

    def _begin(self, method: str, path: str) -> Fault | None:
        state, whole = self._state, self._prefix + path
        with state.lock:
            self._check_alive()
            number = len(state.trace)
            fault = state.schedule(number, method, whole)
            if fault is Fault.OWN_WRITE_EXISTS and method != "put_new":
                fault = None
            state.trace.append(Call(number, method, whole, fault))
        return fault

    def _before(self, fault: Fault | None, method: str, path: str) -> None:
        if fault is Fault.DELAY:
            self._state.delay()
        elif fault is Fault.FAIL_BEFORE:
            raise StorageError(f"injected: {method} {self.uri}/{path} failed and was not applied")
        elif fault is Fault.KILL_BEFORE:
            self._kill(method, path)

    def _after(self, fault: Fault | None, method: str, path: str) -> None:
        if fault is Fault.FAIL_AFTER:
            raise StorageError(f"injected: {method} {self.uri}/{path} was applied, and its reply lost")
        if fault is Fault.OWN_WRITE_EXISTS:
            raise AlreadyExistsError(f"injected: {self.uri}/{path} exists already, written by this very call")
        if fault is Fault.KILL_AFTER:
            self._kill(method, path)

    def _kill(self, method: str, path: str) -> None:
        self._state.dead = True
        raise Killed(f"injected: killed at {method} {self.uri}/{path}")
