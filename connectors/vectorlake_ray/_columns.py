"""Columns computed on Ray: by actors that hold a model, fragment by fragment, or by any pipeline that keeps the row ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from vectorlake import ConflictError, InvalidInputError, Snapshot, Table
from vectorlake.extend import ROW_ID, ColumnWork, RowRange, Split, TableLike, TableRef, given_table
from vectorlake_ray._cluster import cluster
from vectorlake_ray._read import check_shared, pinned
from vectorlake_ray._types import stored_table
from vectorlake_ray._write import run_plainly

BATCH_ROWS: Final = 1024


def add_column(
    table: TableLike,
    name: str,
    function: Callable[..., Any],
    *,
    type: pa.DataType,
    inputs: Sequence[str] | None = None,
    constructor_args: Sequence[Any] = (),
    constructor_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = BATCH_ROWS,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Snapshot:
    """Add a column that Ray's actors compute, in one atomic commit; the table is as it was until then.

    Fragments of the table are shared out: each is computed by one actor, which writes the file of the new column alone.
    Rows that others append meanwhile read as null, and rows that a compaction moves take their values along.

    Args:
        table: a table, or the URI of its folder.
        name: the new column.
        function: a function over record batches of `inputs` that returns as many values (an Arrow or numpy array, of rank
            2 for vectors, or a list); or a class whose instances are such functions, such as one that loads a model when
            it is made. Each actor makes one instance.
        type: an Arrow type or one of `vectorlake.vector(…)` and its kin.
        inputs: the columns that the function is given; all by default.
        constructor_args: of the class.
        constructor_kwargs: likewise.
        batch_size: rows a call of the function.
        concurrency: actors, or the least and the most; by default as many as the cluster has cores.
        num_cpus: cores of an actor; 1 by default.
        num_gpus: GPUs of an actor.
        storage_options: of a URI.

    Returns:
        The snapshot committed.

    Raises:
        AlreadyExistsError: the name is taken.
        NotFoundError: an unknown input.
        InvalidInputError: the function returned the wrong number or type of values (names the row ids), or can't be sent
            to a worker. Nothing is committed; files that were written are orphans, for `collect_orphans`.
    """
    handle = _writable(table, storage_options)
    work = ColumnWork(
        handle.ref, name, type, None if inputs is None else tuple(inputs), batch_rows=batch_size
    )
    udf = _Udf(function, constructor_args, constructor_kwargs)
    return _compute(handle, work, udf, concurrency, num_cpus=num_cpus, num_gpus=num_gpus)


def backfill_column(
    table: TableLike,
    name: str,
    function: Callable[..., Any],
    *,
    inputs: Sequence[str] | None = None,
    rows: str = "missing",
    constructor_args: Sequence[Any] = (),
    constructor_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = BATCH_ROWS,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Snapshot:
    """Compute a column that exists already, on Ray's actors: for the rows where it is null (`"missing"`), or for all.

    Only fragments that need it are computed, and only that column's files are written. Arguments, atomicity and errors as
    for `add_column`; `inputs` are all other columns by default.
    """
    handle = _writable(table, storage_options)
    work = ColumnWork(
        handle.ref, name, None, None if inputs is None else tuple(inputs), rows, batch_rows=batch_size
    )
    udf = _Udf(function, constructor_args, constructor_kwargs)
    return _compute(handle, work, udf, concurrency, num_cpus=num_cpus, num_gpus=num_gpus)


def write_column(
    ds: Dataset,
    table: TableLike,
    name: str,
    *,
    type: pa.DataType | None = None,
    inputs: Sequence[str] = (),
    storage_options: Mapping[str, str] | None = None,
) -> Snapshot:
    """Write values that a pipeline has computed for rows of a table into one of its columns, by row id, in one commit.

    The pipeline is any that starts with `read(table, with_row_id=True)` and keeps `_row_id`: batches may be of any size,
    and each step has its own actors.

    Args:
        ds: with the columns `_row_id` and `name`; executed here, its result kept by Ray until the files are written.
        table: the table that was read, or the URI of its folder. Give `table.at(version)` if it may have changed since.
        name: the column.
        type: of a column that is to be added; None for one that is there, whose other rows keep their values.
        inputs: the columns that the values were computed from: where others replace them meanwhile, nothing is written.
        storage_options: of a URI.

    Returns:
        The snapshot committed.

    Raises:
        InvalidInputError: no such columns in the dataset, a row id that is null or twice there, values that don't fit.
        AlreadyExistsError: the column to be added is there.
        NotFoundError: the column to be written is not there.
        ConflictError: others replaced the inputs meanwhile.
    """
    read_from = pinned(table, storage_options=storage_options)
    handle = given_table(table, storage_options=storage_options)
    handle.transaction()
    kept = () if type is not None else (name,)
    work = ColumnWork(read_from.ref, name, type, (ROW_ID, *kept), rows="all")
    fragments = work.fragments()
    values = ds.map_batches(_values_of(name), batch_format="pyarrow")
    values.context.raise_original_map_exception = True
    blocks = run_plainly(values.to_arrow_refs)
    block_span, fragment_span, part = ray.remote(_block_span), ray.remote(_fragment_span), ray.remote(_part)
    held = run_plainly(lambda: ray.get([block_span.remote(block) for block in blocks]))
    wanted = run_plainly(lambda: ray.get([fragment_span.remote(work.table, *one) for one in fragments]))
    tasks = []
    for (fragment, _), ids in zip(fragments, wanted, strict=True):
        here = [block for block, span in zip(blocks, held, strict=True) if _overlap(span, ids)]
        if here:
            tasks.append(part.remote(work, fragment, name, *here))
    parts = [done for done in run_plainly(lambda: ray.get(tasks)) if done is not None]
    fitted = ColumnWork(work.table, name, type, (*inputs, *kept) or (ROW_ID,), rows="all")
    return fitted.commit(handle, parts, _replaced(name))


def _writable(table: TableLike, storage_options: Mapping[str, str] | None) -> Table:
    handle = given_table(table, storage_options=storage_options)
    check_shared(handle.uri)
    handle.transaction()  # refuses a handle that can't be written to, before any work is done
    return handle


class _Udf:
    """A function, or a class with what its instances are made of; sent to actors, which make one each."""

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None
    ) -> None:
        self._function = function
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        if not isinstance(function, type) and (self._args or self._kwargs):
            raise InvalidInputError("constructor arguments are for a class, and the function given is none")

    def made(self) -> Callable[[pa.RecordBatch], Any]:
        """The function itself."""
        if isinstance(self._function, type):
            made: Callable[[pa.RecordBatch], Any] = self._function(*self._args, **self._kwargs)
            return made
        return self._function


class _Worker:
    """An actor's part: the column of one fragment after the other, with one instance of the user's class."""

    def __init__(self, work: ColumnWork, udf: _Udf) -> None:
        self._work = work
        self._function = udf.made()

    def __call__(self, batch: pa.Table) -> pa.Table:
        parts = [self._work.run(fragment, self._function) for fragment in batch["fragment"].to_pylist()]
        return pa.table({"part": pa.array(parts, pa.large_binary())})


def _compute(
    handle: Table,
    work: ColumnWork,
    udf: _Udf,
    concurrency: int | tuple[int, int] | None,
    *,
    num_cpus: float | None,
    num_gpus: float | None,
) -> Snapshot:
    fragments = [fragment for fragment, _ in work.fragments()]
    parts: list[bytes] = []
    if fragments:
        pool = (1, min(cluster().cores, len(fragments))) if concurrency is None else concurrency
        _check_sendable(udf)
        # Blocks that are there already: a step before the actors, which may take all cores, would wait for one forever.
        todo = ray.data.from_arrow([pa.table({"fragment": [fragment]}) for fragment in fragments])
        done = todo.map_batches(
            _Worker,
            fn_constructor_args=(work, udf),
            batch_format="pyarrow",
            batch_size=1,
            concurrency=pool,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
        )
        done.context.raise_original_map_exception = True  # else Ray hides what was wrong behind "UDF failed"
        parts = [row["part"] for row in run_plainly(done.take_all)]
    return work.commit(handle, parts, _lazily(udf))


def _check_sendable(udf: _Udf) -> None:
    try:
        ray.cloudpickle.dumps(udf)  # type: ignore[no-untyped-call]
    except Exception as e:
        raise InvalidInputError(
            f"the function can't be sent to a worker: {str(e).strip().splitlines()[0]}; give it what it needs as "
            "constructor arguments, without locks, open files or connections in them"
        ) from e


def _lazily(udf: _Udf) -> Callable[[pa.RecordBatch], Any]:
    """The function for the driver, made only if others have changed what the column is computed from."""
    made: list[Callable[[pa.RecordBatch], Any]] = []

    def function(batch: pa.RecordBatch) -> Any:
        if not made:
            made.append(udf.made())
        return made[0](batch)

    return function


def _values_of(name: str) -> Callable[[pa.Table], pa.Table]:
    def values(batch: pa.Table) -> pa.Table:
        for column in (ROW_ID, name):
            if column not in batch.column_names:
                raise InvalidInputError(
                    f"the dataset has no column {column!r}: start it with read(table, with_row_id=True), and keep "
                    f"{ROW_ID!r} and {name!r}"
                )
        return stored_table([batch.select([ROW_ID, name])])

    return values


def _block_span(block: pa.Table) -> tuple[int, int] | None:
    """The least and the greatest row id of a block; on a worker."""
    if not block.num_rows:
        return None
    if block[ROW_ID].null_count:
        raise InvalidInputError(f"the dataset has rows without a {ROW_ID}")
    ends = pc.min_max(block[ROW_ID])
    return ends["min"].as_py(), ends["max"].as_py()


def _fragment_span(table: TableRef, fragment: int, rows: int) -> tuple[int, int] | None:
    """The least and the greatest row id of a fragment: of those that moved, files hold them; on a worker."""
    split = Split(table, (ROW_ID,), None, (RowRange(fragment, 0, rows),))
    return _block_span(split.scan().to_arrow())


def _overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def _part(work: ColumnWork, fragment: int, name: str, *blocks: pa.Table) -> bytes | None:
    """The column of one fragment, of the values that blocks hold for its rows; on a worker."""
    values = stored_table(blocks)
    ids = values[ROW_ID].to_numpy()
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if len(twice := ids[1:][ids[1:] == ids[:-1]]):
        raise InvalidInputError(f"the dataset has row id {int(twice[0])} twice: keep one row of each")
    column = values[name].combine_chunks()
    hits = 0

    def looked_up(batch: pa.RecordBatch) -> pa.Array:
        nonlocal hits
        wanted = batch.column(0).to_numpy()
        slots = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        missing = ids[slots] != wanted
        hits += int((~missing).sum())
        taken = column.take(pa.array(order[slots], mask=missing))
        if batch.num_columns == 1 or not missing.any():
            return taken
        present = batch.column(1)
        return pc.if_else(pa.array(missing), present, taken.cast(present.type))

    part = work.run(fragment, looked_up)
    return part if hits else None


def _replaced(name: str) -> Callable[[pa.RecordBatch], Any]:
    def function(batch: pa.RecordBatch) -> Any:
        raise ConflictError(
            f"what column {name!r} was computed from was replaced meanwhile; nothing was written: read the table again, "
            "and compute anew"
        )

    return function
