"""Cold single queries on an S3 server: requests, bytes, trips and seconds of ours and of Lance.

`python -m _ann.cold WHO URI` is one reader: it answers the lines `open` and `query …` of its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from _ann.protocol import Data, Setting, Skip, grid
from _ann.proxy import Traffic, counting

SETTINGS: Mapping[str, list[Setting]] = {
    "vectorlake-ivf": grid(target_recall=(0.9, 0.95)),
    "lance-pq": grid(nprobes=(64, 128, 256), refine_factor=(10,)),
    "lance-rq": grid(nprobes=(64, 128, 256), refine_factor=(5,)),
}


@dataclass(frozen=True)
class Cold:
    """Medians over some queries, each asked by a new process: of opening the table and asking together."""

    name: str
    setting: str
    recall: float
    requests: int
    trips: int
    kb: float
    ms: float


def run(data: Data, names: list[str], *, queries: int, k: int, threads: int) -> Iterator[Cold]:
    """Put the set and its indexes into a new S3 server and ask for single queries.

    Raises:
        Skip: there is no S3 server program.
    """
    from vectorlake.errors import UnsupportedError
    from vectorlake.testing.s3 import s3_server

    try:
        with s3_server() as server:
            endpoint = urlparse(server.endpoint)
            assert endpoint.hostname is not None
            assert endpoint.port is not None
            with counting(endpoint.hostname, endpoint.port) as (port, traffic):
                through = {**server.storage_options, "aws_endpoint": f"http://127.0.0.1:{port}"}
                for who in names:
                    uri = server.fresh_uri()
                    _write(who, data, uri, server.storage_options, threads)
                    for setting in SETTINGS[who]:
                        yield _ask(who, setting, data, uri, through, traffic, queries=queries, k=k)
    except UnsupportedError as e:
        raise Skip(str(e)) from e


def _write(who: str, data: Data, uri: str, options: dict[str, str], threads: int) -> None:
    if who.startswith("vectorlake"):
        from _ann.peers.ours import write

        write(data, uri, options).create_index("vec", "ivf", metric=data.metric, threads=threads)
        return
    import lance
    import pyarrow as pa

    from _ann.peers.faiss_peer import lists
    from _ann.peers.lance_peer import Pq, Rq

    kind = Pq if who == "lance-pq" else Rq
    values = data.base.astype(np.float16 if data.element == "float16" else np.float32)
    vec = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    rows = pa.table({"id": np.arange(len(values)), "vec": vec})
    dataset = lance.write_dataset(rows, f"{uri}/data.lance", storage_options=options)
    extra = {"num_sub_vectors": values.shape[1] // 8} if who == "lance-pq" else dict(Rq.options)
    metric = {"l2": "L2", "cosine": "cosine", "dot": "dot"}[data.metric]
    dataset.create_index("vec", kind.kind, metric=metric, num_partitions=lists(len(values)), **extra)


def _ask(
    who: str,
    setting: Setting,
    data: Data,
    uri: str,
    options: dict[str, str],
    traffic: Traffic,
    *,
    queries: int,
    k: int,
) -> Cold:
    rows, hits = [], 0
    told = {"options": options, "metric": data.metric, "k": k, "setting": dict(setting.values)}
    for i in range(queries):
        process = subprocess.Popen(
            [sys.executable, "-m", "_ann.cold", who, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "ANN_COLD": json.dumps(told)},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()  # it has loaded its libraries
            before, seconds = traffic.counts(), 0.0
            for line in ("open", f"query {json.dumps(data.queries[i].tolist())}"):
                print(line, file=process.stdin, flush=True)
                answer = json.loads(process.stdout.readline())
                seconds += answer["seconds"]
            spent = traffic.counts().since(before)
        finally:
            process.stdin.close()
            process.wait(60)
        rows.append((spent.requests, spent.trips, spent.received / 1e3, seconds * 1e3))
        hits += len(set(answer["ids"]) & set(data.neighbors[i, :k].tolist()))
    requests, trips, kb, ms = np.median(np.array(rows), axis=0).tolist()
    return Cold(who, str(setting), hits / (queries * k), int(requests), int(trips), kb, ms)


def _reader(who: str, uri: str) -> None:
    told = json.loads(os.environ["ANN_COLD"])
    options, metric, k, setting = told["options"], told["metric"], told["k"], told["setting"]
    search: Callable[[np.ndarray], list[int]]
    if who.startswith("vectorlake"):
        import vectorlake as vl

        def opened() -> Callable[[np.ndarray], list[int]]:
            table = vl.connect(uri, storage_options=options).table("t")
            return lambda query: table.knn(query, "vec", k, metric, **setting)["row_id"].to_pylist()
    else:
        import lance

        def opened() -> Callable[[np.ndarray], list[int]]:
            dataset = lance.dataset(f"{uri}/data.lance", storage_options=options)
            asked: dict[str, Any] = {"column": "vec", "k": k, **setting}
            return lambda query: dataset.to_table(columns=["id", "_distance"], nearest={**asked, "q": query})[
                "id"
            ].to_pylist()

    print("ready", flush=True)
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        query = np.array(json.loads(rest), np.float32) if rest.strip() else np.empty(0)
        begun = time.perf_counter()
        ids: list[int] = []
        if word.strip() == "open":
            search = opened()
        else:
            ids = search(query)
        print(json.dumps({"seconds": time.perf_counter() - begun, "ids": ids}), flush=True)


if __name__ == "__main__":
    _reader(*sys.argv[1:])
