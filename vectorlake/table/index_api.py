"""The part of a table's face that is about its indexes: a few lines each over the modules that do the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.index_changes import (
    DEAD_SHARE,
    GROWTH,
    SEGMENT_ROWS,
    OptimizePlan,
    Shape,
    index_named,
)
from vectorlake.table.handle import Handle
from vectorlake.table.view import View
from vectorlake.tracing import traced

if TYPE_CHECKING:
    from vectorlake.kernels import Metric
    from vectorlake.table.index_info import IndexInfo

_MEMORY = 1 << 30


class IndexApi(Handle):
    """What `Table` can do with indexes."""

    def _index_view(self) -> View:
        """The snapshot from which indexes are built: its row ids must be final."""
        return self.view

    @traced
    def create_index(
        self,
        /,
        column: str | None = None,
        kind: str = "ivf",
        *,
        name: str | None = None,
        metric: str | Metric = "l2",
        memory_limit: int = _MEMORY,
        threads: int | None = None,
        seed: int = 0,
        segment_rows: int = SEGMENT_ROWS,
        progress: Callable[[int, int], None] | None = None,
        calibrate: bool = True,
        **options: Any,
    ) -> Snapshot:
        """Build an index over a vector column of this version, and commit it.

        One atomic commit that makes no conflict with writes of others: what they change meanwhile is scanned by searches
        until `optimize_indexes` takes it in. A build that is killed leaves nothing but orphaned files.

        Args:
            column: the vector column; may be left out if there is one only.
            kind: `"ivf"` (partitions and codes), `"graph"` (low latency), `"flat"` (brute force), or one registered.
            name: by default `<column>_<kind>`.
            metric: the one that searches will use: `"l2"`, `"cosine"`, `"dot"` or `"hamming"`.
            memory_limit: bytes to use, roughly, whatever the table's size.
            threads: by default one a core.
            seed: of everything random.
            segment_rows: rows of a segment, at most.
            progress: called with (rows done, rows in all).
            calibrate: measure recall after training, so that searches can be asked for a recall.
            options: of the kind; those left out are chosen from the data, and `describe_index` tells why.

        Raises:
            InvalidInputError: an unknown kind or option, a metric or type that the kind can't do, nothing to index.
            NotFoundError: no such column.
            AlreadyExistsError: an index of that name exists.
            ConflictError: another writer created one of that name, dropped the column, or restored an earlier version.
        """
        from vectorlake.table.indexing import Indexing, Settings

        self._check_writable()
        settings = Settings(memory_limit, threads, seed, segment_rows, calibrate, progress)
        work = Indexing(self._index_view(), new_id=self._context.new_id, settings=settings)
        return self._commit(
            work.create(column, kind, name=name, metric=metric, options=options, snapshot=self.snapshot)
        )

    @traced
    def rebuild_index(
        self,
        /,
        name: str,
        *,
        memory_limit: int = _MEMORY,
        threads: int | None = None,
        seed: int = 0,
        segment_rows: int = SEGMENT_ROWS,
        progress: Callable[[int, int], None] | None = None,
        calibrate: bool = True,
        **options: Any,
    ) -> Snapshot:
        """Make an index anew from this version, as it was made but for the `options` given; arguments as for
        `create_index`. What was chosen from the data is chosen again.

        Raises:
            NotFoundError: no such index.
            UnsupportedError: it is of a newer release.
            ConflictError: another writer has changed this index meanwhile.
        """
        from vectorlake.table.indexing import Indexing, Settings

        self._check_writable()
        settings = Settings(memory_limit, threads, seed, segment_rows, calibrate, progress)
        work = Indexing(self._index_view(), new_id=self._context.new_id, settings=settings)
        return self._commit(work.rebuild(name, self.snapshot, options=options))

    @traced
    def optimize_indexes(
        self,
        name: str | None = None,
        *,
        dead_share: float = DEAD_SHARE,
        growth: float = GROWTH,
        min_rows: int = 1,
        memory_limit: int = _MEMORY,
        threads: int | None = None,
        seed: int = 0,
        segment_rows: int = SEGMENT_ROWS,
        progress: Callable[[int, int], None] | None = None,
        dry_run: bool = False,
    ) -> Snapshot | list[OptimizePlan]:
        """Take rows that no segment covers into the indexes, merge small segments, leave out dead rows.

        Costs what changed, not what the table holds, unless a model has to be trained anew. One atomic commit.

        Args:
            name: of one index; all by default.
            dead_share: segments of which more than this share is dead are written anew.
            growth: a model is trained anew when the table has so many times the rows that it was trained for; 0: never.
            min_rows: leave rows to be scanned while there are fewer.
            dry_run: only tell: returns the plans, each of which prints as a line.

        Returns:
            The newest snapshot (without a commit if there is nothing to do), or the plans.

        Raises:
            NotFoundError: no such index.
            UnsupportedError: one is of a kind or version that this release does not know; name the others.
            ConflictError: another writer has changed one of these indexes meanwhile.
        """
        from vectorlake.table.indexing import Indexing, Settings, plans

        self._check_writable()
        shape = Shape(segment_rows, dead_share, growth, min_rows)
        view = self._index_view()
        found = plans(view, self.snapshot, name, shape)
        if dry_run:
            return found
        settings = Settings(memory_limit, threads, seed, segment_rows, True, progress)
        change = Indexing(view, new_id=self._context.new_id, settings=settings).optimize(found, self.snapshot)
        return self.snapshot if change is None else self._commit(change)

    @traced
    def drop_index(self, name: str) -> Snapshot:
        """Take an index away, in one atomic commit. Its files stay while earlier versions refer to them.

        Raises:
            NotFoundError: no such index.
        """
        from vectorlake.table.index_commit import drop_index

        self._check_writable()
        return self._commit(drop_index(name, self.snapshot))

    def indexes(self) -> list[IndexInfo]:
        """The indexes of this version: how they were made, how much they cover, how large they are."""
        from vectorlake.table.index_info import describe

        return [describe(self.view, index) for index in self.snapshot.indexes]

    def describe_index(self, name: str) -> IndexInfo:
        """One index of this version; prints as a summary.

        Raises:
            NotFoundError: no such index.
        """
        from vectorlake.table.index_info import describe

        return describe(self.view, index_named(self.snapshot, name))
