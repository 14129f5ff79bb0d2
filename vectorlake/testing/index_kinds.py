"""Make, store and open index segments in memory, as a table would: what a conformance suite of index kinds needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.index.arrays import ArrayFile, Cuts, MemoryArrays, write_arrays
from vectorlake.index.protocol import (
    DEFAULT_MEMORY,
    NO_SLOT,
    Arrays,
    ArraySource,
    Ask,
    Block,
    Config,
    Facts,
    IndexKind,
    Nominated,
    Searcher,
)
from vectorlake.kernels.metric import Metric
from vectorlake.metadata.index import IndexFile
from vectorlake.store.protocol import Store

SEED: Final = 7


@dataclass(frozen=True)
class RowsInMemory:
    """Vectors [n, d] and their row ids as a kind reads them (`index.protocol.Vectors`), some rows at a time."""

    vectors: npt.NDArray[Any]
    row_ids: npt.NDArray[np.int64]
    block_rows: int = 1 << 30

    @property
    def rows(self) -> int:
        return len(self.row_ids)

    def sample(self, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        chosen = rng.choice(self.rows, min(count, self.rows), replace=False)
        sampled: npt.NDArray[Any] = self.vectors[chosen]
        return sampled

    def blocks(self) -> Iterator[Block]:
        for start in range(0, self.rows, self.block_rows):
            stop = start + self.block_rows
            yield Block(self.vectors[start:stop], self.row_ids[start:stop])


@dataclass(frozen=True)
class Made:
    """A model and one segment of it."""

    kind: IndexKind
    config: Config
    model: Arrays
    segment: Arrays

    @property
    def cuts(self) -> Cuts:
        return self.kind.cuts(self.segment)

    @property
    def source(self) -> ArraySource:
        """The segment's arrays, as a file would hand them out."""
        return MemoryArrays(self.segment, self.cuts)

    def opened(self) -> Searcher:
        """Open it from memory."""
        return self.kind.open(MemoryArrays(self.model, {}), self.source, self.config)


@dataclass(frozen=True)
class Stored:
    """A model and a segment in files of a store."""

    made: Made
    store: Store
    model: IndexFile
    segment: IndexFile

    def opened(self) -> Searcher:
        """Open it from the files."""
        sources = ArrayFile(self.store, self.model), ArrayFile(self.store, self.segment)
        return self.made.kind.open(*sources, self.made.config)


@dataclass(frozen=True)
class Recipe:
    """How an index is to be made."""

    kind: IndexKind
    metric: Metric
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    memory: int = DEFAULT_MEMORY

    def config(self, vectors: npt.NDArray[Any]) -> Config:
        """All options settled for these vectors."""
        element = str(vectors.dtype)
        facts = Facts(len(vectors), vectors.shape[1], element, self.metric)
        options = self.kind.resolve(facts, self.options).options
        return Config(self.kind.name, self.metric, vectors.shape[1], element, options)

    def train(self, vectors: npt.NDArray[Any], *, seed: int = SEED) -> tuple[Config, Arrays]:
        """Learn a model of these vectors."""
        config = self.config(vectors)
        rows = RowsInMemory(vectors, np.arange(len(vectors)))
        rng = np.random.default_rng(seed)
        return config, self.kind.train(rows, config, rng=rng, threads=self.threads, memory=self.memory)

    def build(
        self,
        trained: tuple[Config, Arrays],
        vectors: npt.NDArray[Any],
        row_ids: npt.NDArray[np.int64],
        *,
        block_rows: int = 1 << 30,
    ) -> Made:
        """Encode vectors as a segment of a model."""
        config, model = trained
        blocks = RowsInMemory(vectors, row_ids, block_rows).blocks()
        segment = self.kind.build(model, blocks, config, threads=self.threads, memory=self.memory)
        return Made(self.kind, config, model, segment)

    def make(
        self,
        vectors: npt.NDArray[Any],
        row_ids: npt.NDArray[np.int64] | None = None,
        *,
        block_rows: int = 1 << 30,
        seed: int = SEED,
    ) -> Made:
        """Train and build over the same vectors; row ids are positions unless they are given."""
        ids = np.arange(len(vectors)) if row_ids is None else row_ids
        return self.build(self.train(vectors, seed=seed), vectors, ids, block_rows=block_rows)


def merged(parts: Sequence[Made], kept: Sequence[npt.NDArray[np.bool_]]) -> Made:
    """One segment of several of one model, with only the slots marked."""
    first = parts[0]
    pairs = [(part.source, mask) for part, mask in zip(parts, kept, strict=True)]
    segment = first.kind.merge(first.model, pairs, first.config)
    return Made(first.kind, first.config, first.model, segment)


def stored(made: Made, store: Store, scratch: Path) -> Stored:
    """Write a model and a segment into a store, as `index/model.arrow` and `index/segment.arrow`."""
    files = []
    for name, arrays, cuts in (("model", made.model, {}), ("segment", made.segment, made.cuts)):
        local = scratch / f"{name}.arrow"
        files.append(write_arrays(local, arrays, cuts, name=f"index/{name}.arrow"))
        store.put(f"index/{name}.arrow", local.read_bytes())
        local.unlink()
    return Stored(made, store, *files)


def ask_all(
    searcher: Searcher, queries: npt.NDArray[Any], allowed: npt.NDArray[np.uint32] | None = None
) -> Nominated:
    """Search with every row looked at and room for every slot."""
    pool = max(1, len(searcher.row_ids))
    return searcher.search(Ask(queries, pool, searcher.largest_effort, allowed))


def found_ids(searcher: Searcher, nominated: Nominated) -> list[npt.NDArray[np.int64]]:
    """The row ids nominated for each query, ascending."""
    return [np.sort(searcher.row_ids[slots[slots != NO_SLOT]]) for slots in nominated.slots]
