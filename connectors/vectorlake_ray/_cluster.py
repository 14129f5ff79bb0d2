"""The Ray cluster that this process works with."""

from __future__ import annotations

from dataclasses import dataclass

import ray


@dataclass(frozen=True)
class Cluster:
    """What there is to work with."""

    cores: int
    machines: int


def cluster() -> Cluster:
    """The cluster that this process is connected to, else that of `ray.init()`: of `RAY_ADDRESS`, or a new one."""
    if not ray.is_initialized():
        ray.init()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes: list[dict[str, object]] = ray.nodes()  # type: ignore[no-untyped-call]
    return Cluster(max(1, int(resources.get("CPU", 1))), sum(bool(node["Alive"]) for node in nodes))
