"""Jobs on Ray: all run as tasks of the cluster, some have their driver and then a worker killed; and jobs are submitted to it.

Of those that are killed there is one for each shape that stages can have: `job_kills.KILLED` says which, and why.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from job_kills import KILLED, UNHARMED, Kills
from ray_support import HAS_DASHBOARD, Cluster, cluster

import vectorlake as vl

ray = pytest.importorskip("ray", reason="ray is in the extra ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    """A core for each job whose driver is killed: then all of them are stuck at once."""
    with cluster(cores=len(KILLED)) as started:
        yield started


@pytest.fixture(scope="module")
def connected(there: Cluster) -> Iterator[None]:
    ray.init(address=there.address, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("name", UNHARMED)
def test_a_job_runs(kills: Kills, tmp_path: Path, name: str) -> None:
    kills.run("ray", name, tmp_path)


@pytest.fixture(scope="module")
def killed(kills: Kills, there: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    kills.only(*KILLED).start_driver("ray", folder, **there.environment, RAY_ADDRESS=there.address).kill()
    return folder


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_driver_and_then_a_worker(kills: Kills, killed: Path, name: str) -> None:
    kills.resume("ray", name, killed, worker_dies=True)


@pytest.mark.skipif(not HAS_DASHBOARD, reason="jobs are submitted to a cluster with ray[default]")
def test_a_submitted_job(there: Cluster, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = {"id": np.arange(40), "vec": rng.normal(size=(40, 4)).astype("f4")}
    vl.connect(tmp_path / "lake").create_table("v", rows)
    how = ["knn-join", str(tmp_path / "lake"), "v", "--as-column", "near", "-k", "1", "--engine", "ray"]
    submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", there.dashboard, "--"]
    command = [*submit, sys.executable, "-m", "vectorlake_jobs", *how]
    done = subprocess.run(
        command, env=there.environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    near = vl.connect(tmp_path / "lake").table("v").scan(["near"]).to_arrow()["near"]
    assert near.null_count == 0
