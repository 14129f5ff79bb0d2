"""A TCP proxy that counts what an S3 client asks and receives, whatever library it uses."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) /\S* HTTP/1\.1\r\n")


@dataclass
class Traffic:
    """Requests sent and bytes received since it was made."""

    requests: int = 0
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def taken(self) -> tuple[int, int]:
        """Both counts."""
        with self.lock:
            return self.requests, self.received


@contextlib.contextmanager
def counting(host: str, port: int) -> Iterator[tuple[int, Traffic]]:
    """Listen on a free loopback port, pass everything on to `host:port`, and count."""
    traffic = Traffic()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, port))
            for left, right, sent in ((client, server, True), (server, client, False)):
                threading.Thread(target=pump, args=(left, right, sent), daemon=True).start()

    def pump(source: socket.socket, sink: socket.socket, sent: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                with traffic.lock:
                    if sent:
                        traffic.requests += len(_REQUEST.findall(data))
                    else:
                        traffic.received += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], traffic
    finally:
        listener.close()
