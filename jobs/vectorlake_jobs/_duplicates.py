"""What makes two rows duplicates: near vectors, similar texts, or equal keys; each finds pairs of row ids in two steps.

Tasks look at their parts of the table and leave what they found in the scratch folder; the driver links it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.extend import ROW_ID, TableRef, hash_keys
from vectorlake.jobs import Done, Task, Work
from vectorlake_jobs._arrays import load, plain_type, save
from vectorlake_jobs._fit import dimension_of
from vectorlake_jobs._forest import Ids, thinned
from vectorlake_jobs._neighbors import Search
from vectorlake_jobs._tables import split_of

PERMUTATIONS: Final = 128
"""Hash functions of a MinHash signature."""
_NEAR: Final = 64
"""Near rows that are looked for at first: few rows have more, and these are asked again for all of theirs."""
_QUERIES: Final = 512
"""Rows that are asked for all of theirs at a time: each may have as many as the table has rows."""
_BUCKET: Final = 64
"""In a larger bucket each row is compared with this many of it only."""
_TAKE: Final = 65_536


class Likeness(Protocol):
    """A notion of duplicates."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What it depends on, as JSON."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        ...

    def find(self, task: Task, table: TableRef, work: Work) -> str:
        """Look at a part of the table; returns where it left what it found."""
        ...

    def link(self, found: Sequence[str], table: TableRef, done: Done) -> tuple[Ids, Ids]:
        """Pairs of duplicates, from what all tasks found."""
        ...


@dataclass(frozen=True)
class NearVectors:
    """Rows whose vectors are at most `max_distance` apart, exactly or by an index."""

    column: str
    max_distance: float
    metric: str
    mode: str | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {
            "by": "vector",
            "column": self.column,
            "max_distance": self.max_distance,
            "metric": self.metric,
            "mode": self.mode,
        }

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def find(self, task: Task, table: TableRef, work: Work) -> str:
        rows = split_of(task, table, [ROW_ID, self.column]).scan().to_arrow()
        few = Search(_NEAR, self.column, self.metric, mode=self.mode, max_distance=self.max_distance)
        width = dimension_of(table.open(), self.column)
        left, right = np.empty(0, np.int64), np.empty(0, np.int64)
        asked = self._asked(rows, few, few.batch_rows(width, work.memory), table, work)
        full: list[Ids] = [np.empty(0, np.int64)]
        for here, there in asked:
            left, right = thinned(np.concatenate([left, here]), np.concatenate([right, there]))
            ids, counts = np.unique(here, return_counts=True)
            full.append(ids[counts == _NEAR])
        again = rows.filter(pa.array(np.isin(rows[ROW_ID].to_numpy(), np.concatenate(full))))
        for here, there in self._asked(again, replace(few, k=None), _QUERIES, table, work):
            # Thinned batch by batch: a thousand equal rows are a million pairs, but a thousand links.
            left, right = thinned(np.concatenate([left, here]), np.concatenate([right, there]))
        return save(work.scratch, f"pairs/{task.id}.npz", left=left, right=right)

    def _asked(
        self, rows: pa.Table, search: Search, most: int, table: TableRef, work: Work
    ) -> Iterator[tuple[Ids, Ids]]:
        """Rows and those near them, for some rows at a time."""
        for batch in rows.combine_chunks().to_batches(most):
            ids = batch.column(0).to_numpy()
            answer = search.of(table.open(), batch.column(1), own=ids, threads=work.threads)
            yield ids[answer["query"].to_numpy()], answer["row_id"].to_numpy()

    def link(self, found: Sequence[str], table: TableRef, done: Done) -> tuple[Ids, Ids]:
        parts = [load(done.scratch, path) for path in found]
        return _joined(parts, "left"), _joined(parts, "right")


@dataclass(frozen=True)
class SimilarTexts:
    """Rows whose texts have a Jaccard similarity of at least `threshold`, by MinHash and LSH (Broder 1997; Indyk, Motwani
    1998): approximate."""

    column: str
    threshold: float
    shingle: int

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"by": "text", "column": self.column, "threshold": self.threshold, "shingle": self.shingle}

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def find(self, task: Task, table: TableRef, work: Work) -> str:
        from datasketch import MinHash

        ids: list[int] = []
        shingles: list[list[bytes]] = []
        for batch in split_of(task, table, [ROW_ID, self.column]).to_batches():
            for row_id, text in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                if text is not None and (parts := self._shingles(text)):
                    ids.append(row_id)
                    shingles.append(parts)
        signatures = [made.hashvalues for made in MinHash.generator(shingles, num_perm=PERMUTATIONS)]
        rows = np.array(signatures, np.uint32).reshape(-1, PERMUTATIONS)
        return save(work.scratch, f"signatures/{task.id}.npz", ids=np.array(ids, np.int64), rows=rows)

    def _shingles(self, text: str) -> list[bytes]:
        words = text.casefold().split()
        count = max(1, len(words) - self.shingle + 1)
        return [" ".join(words[at : at + self.shingle]).encode() for at in range(count)] if words else []

    def link(self, found: Sequence[str], table: TableRef, done: Done) -> tuple[Ids, Ids]:
        from datasketch import MinHashLSH

        parts = [load(done.scratch, path) for path in found]
        ids = _joined(parts, "ids")
        rows = np.concatenate([part["rows"] for part in parts])
        lsh = MinHashLSH(
            threshold=self.threshold, num_perm=PERMUTATIONS
        )  # chooses the bands for the threshold
        left: list[int] = []
        right: list[int] = []
        for band in range(lsh.b):
            part = np.ascontiguousarray(rows[:, band * lsh.r : (band + 1) * lsh.r])
            for members in _buckets(part.view(f"V{part.shape[1] * 4}").ravel()):
                for one, other in _compared(members):
                    if (rows[one] == rows[other]).mean() >= self.threshold:
                        left.append(one)
                        right.append(other)
        return thinned(ids[np.array(left, np.int64)], ids[np.array(right, np.int64)])


@dataclass(frozen=True)
class EqualKeys:
    """Rows with the same values in some columns; rows with a null among them are nobody's duplicates."""

    keys: tuple[str, ...]

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"by": "key", "keys": list(self.keys)}

    @property
    def columns(self) -> tuple[str, ...]:
        return self.keys

    def find(self, task: Task, table: TableRef, work: Work) -> str:
        ids: list[Ids] = [np.empty(0, np.int64)]
        hashes: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        for batch in split_of(task, table, [ROW_ID, *self.keys]).to_batches():
            whole = batch.drop_null()
            ids.append(whole.column(0).to_numpy())
            hashes.append(hash_keys(whole.columns[1:]))
        return save(
            work.scratch, f"keys/{task.id}.npz", ids=np.concatenate(ids), hashes=np.concatenate(hashes)
        )

    def link(self, found: Sequence[str], table: TableRef, done: Done) -> tuple[Ids, Ids]:
        parts = [load(done.scratch, path) for path in found]
        ids, hashes = _joined(parts, "ids"), np.concatenate([part["hashes"] for part in parts])
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        same = ordered[1:] == ordered[:-1]
        # Hashes of different keys may meet: rows that share one are compared by value.
        shared = np.concatenate([[False], same]) | np.concatenate([same, [False]])
        suspects = np.sort(ids[order[shared]])
        opened = table.open()
        taken = [
            opened.take(suspects[at : at + _TAKE], list(self.keys)) for at in range(0, len(suspects), _TAKE)
        ]
        if not taken:
            return suspects, suspects
        names = [f"k{number}" for number in range(len(self.keys))]
        rows = pa.concat_tables(taken).rename_columns(names).append_column("id", pa.array(suspects))
        lowest = rows.group_by(names).aggregate([("id", "min")])
        linked = rows.join(lowest, names)
        lowest_ids, own = linked["id_min"].to_numpy(), linked["id"].to_numpy()
        return lowest_ids[lowest_ids != own], own[lowest_ids != own]


def _joined(parts: Sequence[Mapping[str, npt.NDArray[Any]]], name: str) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *(part[name] for part in parts)])


def _buckets(keys: npt.NDArray[Any]) -> Iterator[Ids]:
    """The places of equal keys, for each that occurs more than once."""
    _, places = np.unique(keys, return_inverse=True)
    order = np.argsort(places, kind="stable")
    edges = np.flatnonzero(np.diff(places[order])) + 1
    for members in np.split(order, edges):
        if len(members) > 1:
            yield members


def _compared(members: Ids) -> Iterator[tuple[int, int]]:
    if len(members) <= _BUCKET:
        yield from combinations(members.tolist(), 2)
        return
    for place, member in enumerate(members.tolist()):
        for other in members[: min(place, _BUCKET)].tolist():
            yield other, member


def check_likeness(table: vl.Table, likeness: Likeness) -> None:
    """Refuse what can't be compared, before anything runs.

    Raises:
        NotFoundError: an unknown column.
        InvalidInputError: a column of another kind than it needs.
        UnsupportedError: a library is missing.
    """
    fields = [table.schema.field(field.name) for field in table.scan(list(likeness.columns)).fields]
    kinds = [plain_type(field.type) for field in fields]
    if isinstance(likeness, SimilarTexts):
        if not (pa.types.is_string(kinds[0]) or pa.types.is_large_string(kinds[0])):
            raise InvalidInputError(f"column {likeness.column!r} holds {fields[0].type}, not text")
        try:
            import datasketch  # noqa: F401
        except ImportError as e:
            raise UnsupportedError("similar texts need datasketch: pip install 'vectorlake[jobs]'") from e
    if isinstance(likeness, EqualKeys):
        for field, kind in zip(fields, kinds, strict=True):
            if pa.types.is_nested(kind) or pa.types.is_floating(kind):
                raise InvalidInputError(
                    f"column {field.name!r} holds {field.type}, which is no key: name columns of integers, texts, dates, …"
                )
