"""Tables as datasets of PyTorch: a stream that is shuffled, sharded and resumed, and rows by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch.distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vectorlake import InvalidInputError, Table
from vectorlake.extend import ROW_ID, Split
from vectorlake_torch._types import Column, tensors

PART_ROWS: Final = 8192
"""Rows that are read, and shuffled among each other, at a time."""


class IterableTable(IterableDataset[dict[str, Column]]):
    """The rows of one version of a table in batches, each a dictionary of tensors: `DataLoader(…, batch_size=None)`.

    The table is read in parts. Ranks, and the DataLoader's workers within a rank, each read parts of their own: together
    every row once. Picklable, but for `memory://` tables, which no other process can open.
    """

    def __init__(
        self,
        table: Table,
        *,
        batch_size: int,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        seed: int | None = None,
        drop_last: bool = False,
        part_rows: int = PART_ROWS,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """A stream of one version of a table.

        Args:
            table: a table, or a version of it, which later commits don't change.
            batch_size: rows of a batch.
            columns: names, in the order wanted; all by default. `_row_id` may be among them.
            filter: an SQL condition as `Table.scan` takes it.
            seed: shuffle: parts among each other, and the rows of each part, anew for each epoch (see `set_epoch`). None for
                the order of the table.
            drop_last: leave out what is left at the end of each worker's rows if it fills no batch.
            part_rows: rows of a part, at most. More of them mix better, and take more memory.
            rank: which share of the rows to read, of `world_size`; both by default those of `torch.distributed`, if that is
                initialized, else there is one share.
            world_size: see there.

        Raises:
            NotFoundError: an unknown column.
            InvalidInputError: a filter that does not fit, or numbers out of range.
        """
        self._batch_size = _positive("batch_size", batch_size)
        self._parts = table.scan(columns, filter).splits(_positive("part_rows", part_rows))
        self._version = table.version
        self._seed = seed
        self._drop_last = drop_last
        self._rank, self._world_size = _share(rank, world_size)
        self._epoch = 0
        self._position = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle in another order from the next iteration on, which begins at the start."""
        self._epoch, self._position = epoch, (0, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: after the batch that it yielded last. A small dictionary of plain values.

        It is the state of the process that iterates: without workers the dataset's own, else each worker's, for which
        torchdata's `StatefulDataLoader` asks.
        """
        share, shares = self._shares()
        return {
            "version": self._version,
            "seed": self._seed,
            "epoch": self._epoch,
            "share": [share, shares],
            "position": list(self._position),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next iteration yields what the one that was asked had not.

        Raises:
            InvalidInputError: the state is of another version, seed or share of the rows: other rows would follow.
        """
        mine = self.state_dict()
        for name in ("version", "seed", "share"):
            if state.get(name) != mine[name]:
                raise InvalidInputError(
                    f"the state is of {name} {state.get(name)!r}, the dataset has {mine[name]!r}: resume with the same "
                    "table version, seed, ranks and workers"
                )
        self._epoch = int(state["epoch"])
        part, row = state["position"]
        self._position = (int(part), int(row))

    def __iter__(self) -> Iterator[dict[str, Column]]:
        parts = self._order()
        first, skipped = self._position
        held: list[pa.Table] = []
        rows = 0
        for number in range(first, len(parts)):
            table = self._read(parts[number])
            start = skipped if number == first else 0
            while start < table.num_rows:
                taken = min(self._batch_size - rows, table.num_rows - start)
                held.append(table.slice(start, taken))
                start, rows = start + taken, rows + taken
                if rows == self._batch_size:
                    # Before the batch is handed over: whoever has it can ask for the state that follows it.
                    self._position = (number, start)
                    yield tensors(pa.concat_tables(held))
                    held, rows = [], 0
        self._position = (len(parts), 0)
        if held and not self._drop_last:
            yield tensors(pa.concat_tables(held))
        self._position = (0, 0)

    def _order(self) -> list[int]:
        """The parts of this share, in the order of this epoch."""
        order = np.arange(len(self._parts))
        if self._seed is not None:
            np.random.default_rng([self._seed, self._epoch]).shuffle(order)
        share, shares = self._shares()
        found: list[int] = order[share::shares].tolist()
        return found

    def _read(self, number: int) -> pa.Table:
        part: Split = self._parts[number]
        table = part.scan().to_arrow()
        if self._seed is None:
            return table
        return table.take(
            np.random.default_rng([self._seed, self._epoch, number]).permutation(table.num_rows)
        )

    def _shares(self) -> tuple[int, int]:
        """Which share of the parts is read here, of how many."""
        worker = get_worker_info()
        if worker is None:
            return self._rank, self._world_size
        return self._rank * worker.num_workers + worker.id, self._world_size * worker.num_workers


class MapTable(Dataset[dict[str, Column]]):
    """The rows of one version of a table by position, each a dictionary: for samplers that need random access.

    `DataLoader` fetches the rows of a batch in one read. Holds the row ids, 8 bytes a row.
    """

    def __init__(
        self, table: Table, *, columns: Sequence[str] | None = None, filter: str | None = None
    ) -> None:
        """The rows of one version of a table.

        Args:
            table: a table, or a version of it, which later commits don't change.
            columns: names, in the order wanted; all by default.
            filter: an SQL condition as `Table.scan` takes it: only its rows.

        Raises:
            NotFoundError: an unknown column.
            InvalidInputError: a filter that does not fit.
        """
        scan = table.scan(columns, filter)
        self._table = table.at(table.version)
        self._columns = [field.name for field in scan.fields]
        self._row_ids = table.scan([ROW_ID], filter).to_arrow().column(0).to_numpy()

    def __len__(self) -> int:
        return len(self._row_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A row.

        Raises:
            IndexError: there are not so many.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows, in the order asked for, read at once."""
        found = tensors(self._table.take(self._row_ids[np.asarray(indices, np.int64)], self._columns))
        return [{name: column[row] for name, column in found.items()} for row in range(len(indices))]


def _share(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise InvalidInputError("rank and world_size go together: give both, or neither")
    if rank is None or world_size is None:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()
    if not 0 <= rank < world_size:
        raise InvalidInputError(f"rank must be from 0 to {world_size - 1}, not {rank}")
    return rank, world_size


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{name} must be a positive integer, not {value!r}")
    return value
