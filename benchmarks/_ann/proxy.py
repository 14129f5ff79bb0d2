"""A TCP proxy that counts what an S3 client asks and receives, whatever library it uses."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) /\S* HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER_END = b"\r\n\r\n"
_CHUNKS_END = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Counts:
    """Requests sent, bytes received, and trips: times that a request was sent while none was under way."""

    requests: int = 0
    received: int = 0
    trips: int = 0

    def since(self, before: Counts) -> Counts:
        return Counts(
            self.requests - before.requests, self.received - before.received, self.trips - before.trips
        )


@dataclass
class Traffic:
    """What has passed since it was made."""

    _counts: Counts = Counts()
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def counts(self) -> Counts:
        with self._lock:
            return self._counts

    def asked(self) -> None:
        with self._lock:
            now = self._counts
            self._counts = Counts(now.requests + 1, now.received, now.trips + (self._under_way == 0))
            self._under_way += 1

    def got(self, size: int, answered: int) -> None:
        with self._lock:
            now = self._counts
            self._counts = Counts(now.requests, now.received + size, now.trips)
            self._under_way = max(self._under_way - answered, 0)


class _Connection:
    """The requests of one connection, and where in the answer to which of them it is."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._methods: deque[bytes] = deque()
        self._pending = b""
        self._left = 0

    def sent(self, data: bytes) -> None:
        for found in _REQUEST.finditer(data):
            self._methods.append(found[1])
            self._traffic.asked()

    def received(self, data: bytes) -> None:
        self._traffic.got(len(data), self._answered(data))

    def _answered(self, data: bytes) -> int:
        """How many answers end in these bytes."""
        ended = 0
        if self._left:
            taken = min(self._left, len(data))
            self._left -= taken
            data = data[taken:]
            ended += self._left == 0
        self._pending += data
        while not self._left and _HEADER_END in self._pending:
            head, _, body = self._pending.partition(_HEADER_END)
            length = _LENGTH.search(head)
            if length is None and b"chunked" in head.lower():
                if _CHUNKS_END not in b"\r\n" + body:
                    break
                body = (b"\r\n" + body).partition(_CHUNKS_END)[2]
                size = 0
            else:
                size = int(length[1]) if length else 0
            method = self._methods.popleft() if self._methods else b"GET"
            size = 0 if method == b"HEAD" else size
            self._left = max(size - len(body), 0)
            self._pending = body[size:]
            ended += self._left == 0
        return ended


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
            connection = _Connection(traffic)
            for source, sink, told in (
                (client, server, connection.sent),
                (server, client, connection.received),
            ):
                threading.Thread(target=pump, args=(source, sink, told), daemon=True).start()

    def pump(source: socket.socket, sink: socket.socket, told: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                told(data)
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
