"""What all tests share: a real S3 server, started when a test first asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vectorlake.testing.s3 import S3Server, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server per test process; tests that ask for it are marked `s3` and work under `fresh_uri()`."""
    with s3_server() as server:
        yield server
