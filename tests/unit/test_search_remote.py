"""Searching by an index on a real S3 server: few requests, few bytes, and the same answer as from local disk."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import vectorlake as vl
from vectorlake.testing.s3 import S3Server

ROWS, DIMENSION = 8000, 128
_REQUEST = re.compile(rb"(GET|HEAD) (\S+) HTTP/1.1\r\n")


class Meter:
    """Passes plain HTTP on to a server, and counts what is asked for and what comes back."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.paths: list[str] = []
        self.bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def reset(self) -> None:
        with self._lock:
            self.paths, self.bytes = [], 0

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for source, sink, asking in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, sink, asking), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, asking: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    if asking:
                        self.paths += [match.group(2).decode() for match in _REQUEST.finditer(data)]
                    else:
                        self.bytes += len(data)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()


@contextmanager
def metered(server: S3Server) -> Iterator[tuple[Meter, dict[str, str]]]:
    place = urlsplit(server.endpoint)
    assert place.hostname is not None
    assert place.port is not None
    meter = Meter((place.hostname, place.port))
    try:
        yield meter, {**server.storage_options, "aws_endpoint": meter.endpoint}
    finally:
        meter.close()


@pytest.mark.s3
def test_a_cold_query_asks_for_little(s3: S3Server, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, DIMENSION)) * 2
    vectors = (centres[rng.integers(0, 50, ROWS)] + rng.standard_normal((ROWS, DIMENSION))).astype("f4")
    uri = s3.fresh_uri()
    made = vl.connect(uri, storage_options=s3.storage_options).create_table(
        "t", {"vec": vectors}, properties={"write.vector-format": "lance"}
    )
    made.create_index("vec", "ivf", name="ix", nlist=64)
    near = vl.connect(str(tmp_path)).create_table(
        "t", {"vec": vectors}, properties={"write.vector-format": "lance"}
    )
    near.create_index("vec", "ivf", name="ix", nlist=64)
    with metered(s3) as (meter, through):
        far = vl.connect(uri, storage_options=through).table("t")
        meter.reset()
        told = far.explain_knn(vectors[0], index="ix", nprobe=4, pool=20)
        cold, spent = list(meter.paths), meter.bytes
        index = [path for path in cold if "/index/" in path]
        assert len(index) <= 8
        assert len(cold) <= 8 + 20 + 10
        assert spent < ROWS * DIMENSION * 4 / 2
        assert 0 < told.bytes_read < spent
        assert told.rows_read == 20
        meter.reset()
        again = far.knn(vectors[0], index="ix", nprobe=4, pool=20)
        assert not [path for path in meter.paths if "/index/" in path]
        assert again.equals(told.found)
        assert again.equals(near.knn(vectors[0], index="ix", nprobe=4, pool=20))
        many = far.knn(vectors[:40], index="ix", nprobe=6)
        assert many.equals(near.knn(vectors[:40], index="ix", nprobe=6))
