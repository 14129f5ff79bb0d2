"""Errors as Spark shows them: with the message, and without the library's own frames, which say nothing to users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pyarrow as pa

from vectorlake import VectorlakeError


class failing_briefly(AbstractContextManager[None]):  # noqa: N801  # used like a function
    """Lets errors that are raised on purpose out of the block, without what led to them."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, VectorlakeError):
            raise error.with_traceback(None) from None


def briefly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; an error in between comes out as from `failing_briefly`."""
    with failing_briefly():
        yield from batches
