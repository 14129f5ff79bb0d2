"""Which rows may be found: those for which a filter is true, among some row ids, but not among others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.plan.scan import fields_by_name
from vectorlake.search.vectors import Rows
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.locate import locate
from vectorlake.table.scan import MORSEL_ROWS, ordered_map
from vectorlake.table.view import View


@dataclass(frozen=True)
class Selection:
    """Conditions on the rows that a search may find; all must hold.

    Attributes:
        predicate: true for them; None for no such condition.
        include: their row ids are among these (ascending, distinct int64), None for all.
        exclude: and not among these.
    """

    predicate: Expr | None = None
    include: npt.NDArray[np.int64] | None = None
    exclude: npt.NDArray[np.int64] | None = None

    @property
    def all(self) -> bool:
        """Whether every live row may be found."""
        return self.predicate is None and self.include is None and self.exclude is None

    @property
    def by_id(self) -> bool:
        """Whether row ids matter."""
        return self.include is not None or self.exclude is not None

    def admits(self, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some row ids pass `include` and `exclude`."""
        admitted = np.ones(len(row_ids), np.bool_)
        if self.include is not None:
            admitted &= among(row_ids, self.include)
        if self.exclude is not None:
            admitted &= ~among(row_ids, self.exclude)
        return admitted

    def positions(
        self, view: View, reader: FragmentReader, start: int, stop: int
    ) -> npt.NDArray[np.int64] | None:
        """Live positions in `[start, stop)` that are selected; None for all rows there."""
        positions, _ = view.matches(reader, self.predicate, start, stop)
        if not self.by_id:
            return positions
        if positions is None:
            positions = np.arange(start, stop)
        return positions[self.admits(reader.row_ids_at(positions))]


def among(row_ids: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of some row ids are among ascending ones."""
    if not len(chosen):
        return np.zeros(len(row_ids), np.bool_)
    at = np.minimum(np.searchsorted(chosen, row_ids), len(chosen) - 1)
    found: npt.NDArray[np.bool_] = chosen[at] == row_ids
    return found


def as_row_ids(name: str, ids: Any) -> npt.NDArray[np.int64] | None:
    """Row ids as users hand them over, ascending and distinct.

    Raises:
        InvalidInputError: they are no integers.
    """
    if ids is None:
        return None
    if isinstance(ids, pa.ChunkedArray | pa.Array):
        ids = ids.to_numpy(zero_copy_only=False)
    array = np.asarray(ids if hasattr(ids, "__len__") else list(ids))
    if array.ndim != 1 or (len(array) and not np.issubdtype(array.dtype, np.integer)):
        raise InvalidInputError(f"{name} takes row ids, a list of integers, not {ids!r}")
    return np.unique(array.astype(np.int64))


def selected_rows(view: View, selection: Selection, threads: int | None) -> list[Rows]:
    """The selected rows of every fragment that may have some.

    With few ids to include only the fragments that hold them are opened.
    """
    if selection.include is not None:
        return _included(view, selection, selection.include)
    predicate = selection.predicate
    fields = fields_by_name(view.snapshot.schema)

    def read(morsel: tuple[FragmentReader, int, int]) -> tuple[FragmentReader, npt.NDArray[np.int64]]:
        reader, start, stop = morsel
        positions = selection.positions(view, reader, start, stop)
        return reader, np.arange(start, stop) if positions is None else positions

    morsels = (
        (reader, start, min(start + MORSEL_ROWS, high))
        for reader in view.readers(predicate)
        for low, high in (
            [(0, reader.fragment.row_count)] if predicate is None else reader.prune(predicate, fields)
        )
        for start in range(low, high, MORSEL_ROWS)
    )
    by_fragment: dict[int, tuple[FragmentReader, list[npt.NDArray[np.int64]]]] = {}
    for reader, positions in ordered_map(read, morsels, threads=threads or 2):
        if len(positions):
            by_fragment.setdefault(reader.fragment.id, (reader, []))[1].append(positions)
    return [(reader, np.concatenate(parts)) for reader, parts in by_fragment.values()]


def _included(view: View, selection: Selection, include: npt.NDArray[np.int64]) -> list[Rows]:
    rows: list[Rows] = []
    wanted = include if selection.exclude is None else include[~among(include, selection.exclude)]
    fields = fields_by_name(view.snapshot.schema)
    for found in locate(view, wanted):
        positions = np.sort(found.positions)
        if selection.predicate is not None:
            names = sorted(selection.predicate.columns())
            batch = found.reader.take([fields[name] for name in names], positions)
            positions = positions[np.asarray(selection.predicate.mask(batch), np.bool_)]
        if len(positions):
            rows.append((found.reader, positions))
    return rows
