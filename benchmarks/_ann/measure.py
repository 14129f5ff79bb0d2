"""Measure one contestant: build time, size, recall against speed over its settings, latencies of single queries."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from _ann.protocol import Contestant, Data, JoinTruth, Setting

ENOUGH = 0.999
"""A sweep ends where recall is this good."""
TARGETS = (0.95, 0.99)
SLOW = 2.0
"""Seconds for the set's own queries beyond which one run tells enough."""


@dataclass(frozen=True)
class Point:
    """One setting of a sweep: recall@k and queries a second, batched."""

    setting: str
    recall: float
    qps: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of single queries, one after another, at the first setting that reached a recall."""

    target: float
    setting: str
    recall: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Join:
    """Rows of the set looked up among all of it, at the best setting that reached a target."""

    rows: int
    setting: str
    recall: float
    seconds: float


@dataclass
class Outcome:
    """All that was measured of one contestant on one data set; `skipped` says why nothing was."""

    name: str
    skipped: str | None = None
    build_s: float = 0.0
    disk_mb: float | None = None
    memory_mb: float = 0.0
    points: list[Point] = field(default_factory=list)
    single: list[Latency] = field(default_factory=list)
    join: Join | None = None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def recall(found: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of the true nearest k that were found."""
    known = truth[:, :k]
    hits = sum(len(np.intersect1d(a[:k], b)) for a, b in zip(found, known, strict=True))
    return hits / known.size


def resident_mb() -> float:
    """What this process holds in memory now."""
    try:
        import psutil
    except ImportError:
        return float("nan")
    return float(psutil.Process().memory_info().rss) / 1e6


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure."""

    k: int
    threads: int
    rounds: int


def run(contestant: Contestant, data: Data, name: str, folder: Path, effort: Effort) -> Outcome:
    """Measure everything of one contestant."""
    k, threads = effort.k, effort.threads
    contestant.load(data, folder)
    gc.collect()
    before = resident_mb()
    begun = time.perf_counter()
    contestant.build(data, folder, threads=threads)
    outcome = Outcome(name, build_s=time.perf_counter() - begun)
    gc.collect()
    outcome.memory_mb = resident_mb() - before
    size = contestant.save(folder)
    outcome.disk_mb = None if size is None else size / 1e6
    many = data.queries
    while len(many) < 1000:
        many = np.concatenate([many, data.queries])
    many = np.ascontiguousarray(many[: max(1000, len(data.queries))])
    reached: dict[float, tuple[float, Setting, float]] = {}
    for setting in contestant.settings():
        contestant.prepare(setting, k=k, threads=threads)
        contestant.search(data.queries[:20], k)
        begun = time.perf_counter()
        found = contestant.search(data.queries, k)
        taken = time.perf_counter() - begun
        score = recall(found, data.neighbors, k)
        qps = len(data.queries) / taken
        if taken < SLOW:
            qps = len(many) / quickest(lambda: contestant.search(many, k), effort.rounds)
        outcome.points.append(Point(str(setting), score, qps))
        for target in TARGETS:
            if score >= target and (target not in reached or qps > reached[target][0]):
                reached[target] = (qps, setting, score)
        if score >= ENOUGH:
            break
    for target, (_, setting, score) in reached.items():
        contestant.prepare(setting, k=k, threads=1)
        taken = singles(contestant, data.queries, k)
        p50, p99 = np.percentile(taken, [50, 99]) * 1e3
        outcome.single.append(Latency(target, str(setting), score, float(p50), float(p99)))
    if data.join and reached:
        best = max(reached)
        contestant.prepare(reached[best][1], k=k, threads=threads)
        outcome.join = self_join(contestant, data.base, data.join, str(reached[best][1]), k)
    return outcome


def self_join(contestant: Contestant, base: np.ndarray, truth: JoinTruth, setting: str, k: int) -> Join:
    """Look up the first rows of the base among all of it; recall from some of them."""
    begun = time.perf_counter()
    found = contestant.search(base[: truth.rows], k)
    seconds = time.perf_counter() - begun
    return Join(truth.rows, setting, recall(found[truth.sample], truth.neighbors, k), seconds)


def quickest(call: Callable[[], object], rounds: int, *, limit: float = 20.0) -> float:
    """Seconds of the quickest of some rounds; fewer rounds where they take long together."""
    best = float("inf")
    begun = time.perf_counter()
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begun > limit:
            break
    return best


def singles(contestant: Contestant, queries: np.ndarray, k: int, *, limit: float = 10.0) -> np.ndarray:
    """Seconds of each query, for at most `limit` seconds, after some that are not counted."""
    for i in range(min(20, len(queries))):
        contestant.search(queries[i : i + 1], k)
    taken = []
    begun = time.perf_counter()
    for i in range(len(queries)):
        start = time.perf_counter()
        contestant.search(queries[i : i + 1], k)
        now = time.perf_counter()
        taken.append(now - start)
        if now - begun > limit:
            break
    return np.array(taken)
