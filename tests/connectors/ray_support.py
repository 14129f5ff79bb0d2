"""A Ray cluster in a process of its own, to which drivers come, and which outlives them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec

import psutil
from job_kills import MARK, marked, wait_until

from vectorlake.ids import random_id

HAS_DASHBOARD = find_spec("aiohttp_cors") is not None
"""Whether Ray's extra `default` is here, with which a cluster takes submitted jobs."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: where drivers connect.
        dashboard: where jobs are submitted; empty without `HAS_DASHBOARD`.
        environment: of processes that work with it.
    """

    address: str
    dashboard: str
    environment: dict[str, str]


@contextmanager
def cluster(*, cores: int) -> Iterator[Cluster]:
    """A cluster that thinks that it has so many cores. In the end all of it is killed, and nothing is left."""
    mark = random_id()
    places = os.pathsep.join(place for place in sys.path if place)
    # Without a token, which who connects to an address would have to be told to send.
    told = {"PYTHONPATH": places, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | told
    command = [sys.executable, __file__, str(cores)]
    head = subprocess.Popen(
        command, env={**environment, MARK: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert head.stdout is not None
        told_at = head.stdout.readline().strip()
        assert told_at, "the cluster did not start"
        address, _, dashboard = told_at.partition(" ")
        yield Cluster(address, dashboard, environment)
    finally:
        # Else its dashboard asks for a minute where the head is, which takes a core.
        parts = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGKILL)
        head.wait()
        for part in parts:
            with suppress(psutil.NoSuchProcess):
                part.kill()
        wait_until(lambda: not marked(mark))


def _serve(cores: int) -> None:
    import ray

    context = ray.init(
        num_cpus=cores,
        include_dashboard=HAS_DASHBOARD,
        object_store_memory=200 * 1024**2,
        log_to_driver=False,
        logging_level=logging.ERROR,
        # Else it starts a worker for each core, of which the first driver needs two.
        _system_config={"prestart_worker_first_driver": False},
    )
    dashboard = f"http://{context.dashboard_url}" if HAS_DASHBOARD else ""
    print(f"{context.address_info['gcs_address']} {dashboard}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
