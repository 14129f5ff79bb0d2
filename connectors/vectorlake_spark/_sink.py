"""A streaming sink: each micro-batch is one commit, and is committed once however often it is tried."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql.datasource import DataSourceStreamArrowWriter
from pyspark.sql.types import StructType

from vectorlake import InvalidInputError
from vectorlake.extend import StreamPosition
from vectorlake_spark._failing import failing_briefly
from vectorlake_spark._options import Options
from vectorlake_spark._write import Staged, Target


class StreamWriter(DataSourceStreamArrowWriter):
    """Writes micro-batches. Spark makes one to write, and another one to commit."""

    def __init__(self, options: Options, schema: StructType, *, overwrite: bool) -> None:
        self._target = Target.plan(options, schema, overwrite=overwrite)
        self._stream = options.stream_id

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Staged:
        """Stage a task's rows."""
        with failing_briefly():
            return self._target.stage(iterator)

    def commit(self, messages: list[Staged], batchId: int) -> None:  # type: ignore[override]
        """Commit a micro-batch, unless that was done before the query was started again.

        The query's id names the stream. It lives in the checkpoint: a query with a new checkpoint is a new stream.
        """
        with failing_briefly():
            stream = self._stream or next((message.query for message in messages if message.query), None)
            if stream is None:
                raise InvalidInputError(
                    "Spark does not tell which streaming query this is: name it with the option 'streamId'"
                )
            self._target.commit(messages, StreamPosition(stream, batchId))

    def abort(self, messages: list[Staged | None], batchId: int) -> None:  # type: ignore[override]
        """Leave nothing of a micro-batch that failed."""
        with failing_briefly():
            self._target.abort(messages)
