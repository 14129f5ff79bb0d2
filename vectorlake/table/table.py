"""A table as users hold it: every operation on one table, each a few lines over the module that does the work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vectorlake.errors import AlreadyExistsError, InvalidInputError, UnsupportedError
from vectorlake.expr import Expr
from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot, Tag
from vectorlake.plan.commit import Delta
from vectorlake.plan.conflict import Effects, check_metadata
from vectorlake.plan.layout import check_properties
from vectorlake.plan.merge import Mode
from vectorlake.store.protocol import Store
from vectorlake.table import branches as branching
from vectorlake.table.branches import BranchInfo, Version
from vectorlake.table.column_api import ColumnApi
from vectorlake.table.commit import Build, Committer
from vectorlake.table.context import Context
from vectorlake.table.deletes import Delete
from vectorlake.table.files import DataFiles
from vectorlake.table.follow import same
from vectorlake.table.index_api import IndexApi
from vectorlake.table.keys import KeyGuard, key_fields
from vectorlake.table.locate import take_rows
from vectorlake.table.log import TableLog
from vectorlake.table.ref import TableRef, ref_of, reopen
from vectorlake.table.scan import Scan, make_scan
from vectorlake.table.staging import write_rows
from vectorlake.table.view import View
from vectorlake.table.writer import discard
from vectorlake.tracing import traced

if TYPE_CHECKING:
    import pandas
    import polars

    from vectorlake.kernels import Metric
    from vectorlake.plan.changes import By
    from vectorlake.plan.compaction import CompactionPlan
    from vectorlake.search.builder import Search
    from vectorlake.search.evaluate import Evaluation
    from vectorlake.search.explain import Explanation
    from vectorlake.search.searcher import KnnSearcher
    from vectorlake.table.changes import Changes
    from vectorlake.table.dataset import ScanDataset
    from vectorlake.table.diff import Diff
    from vectorlake.table.expiry import Expiry
    from vectorlake.table.manifest_rewrite import ManifestPlan
    from vectorlake.table.merge import Merge
    from vectorlake.table.orphans import Orphans
    from vectorlake.table.repair import Repair
    from vectorlake.table.transaction import Transaction
    from vectorlake.table.verify import Finding


class Table(ColumnApi, IndexApi):
    """One table, pinned to the snapshot that was the latest when it was opened.

    Reads answer from that snapshot until `refresh()` or a write of this handle moves it to a newer one; handles that
    `at()` returned never move and refuse writes. Each write is one atomic commit and returns the snapshot it made.
    Safe to share between threads. Pickled, it opens again in the other process, at the same version.
    """

    def __init__(
        self,
        name: str,
        log: TableLog,
        snapshot: Snapshot,
        *,
        context: Context,
        pinned: bool = False,
    ) -> None:
        self.name = name
        self._log = log
        self._context = context
        self._files = DataFiles(log.store, context)
        self._committer = Committer(log, clock=context.clock, new_id=context.new_id, audit=context.audit)
        self._pinned = pinned
        self._view = View(snapshot, log, self._files)

    def __repr__(self) -> str:
        branch = f", branch={self.branch_name!r}" if self.branch_name else ""
        return f"Table({self.name!r}{branch}, version={self.version}, rows={self.snapshot.num_rows}, uri={self.uri!r})"

    def __len__(self) -> int:
        return self.snapshot.num_rows

    def __reduce__(self) -> tuple[Callable[[TableRef, bool], Table], tuple[TableRef, bool]]:
        return reopen, (self.ref, self._pinned)

    # --- what it is ---

    @property
    def uri(self) -> str:
        """Where the table lies."""
        return self._log.store.uri

    @property
    def store(self) -> Store:
        """The store rooted at the table's folder."""
        return self._log.store

    @property
    def view(self) -> View:
        """The pinned snapshot, open for reading: what connectors and jobs work on."""
        return self._view

    @property
    def snapshot(self) -> Snapshot:
        """The pinned snapshot."""
        return self._view.snapshot

    @property
    def ref(self) -> TableRef:
        """The table at the pinned version as a small value that another process can open.

        Raises:
            UnsupportedError: this is a transaction that has changed something: only its own process sees that.
        """
        return ref_of(self._view, self.name)

    @property
    def version(self) -> int:
        """The pinned snapshot's version."""
        return self.snapshot.version

    @property
    def branch_name(self) -> str | None:
        """The branch whose versions this handle reads and writes; None for the main line."""
        return self._log.branch.name if self._log.branch else None

    @property
    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return self.snapshot.schema.to_arrow()

    @property
    def properties(self) -> Mapping[str, str]:
        """The table's properties."""
        return dict(self.snapshot.properties)

    def refresh(self) -> Table:
        """Move to the table's latest version; a handle from `at()` stays where it is. Returns the table itself."""
        if not self._pinned:
            self._move(self._log.latest(after=self.snapshot))
        return self

    def at(self, version: Version) -> Table:
        """The table as it was: at a version number, a tag, or a point in time (the newest version not after it), or a
        branch's newest version.

        Raises:
            NotFoundError: no such version, tag or branch, or the table is younger than that time.
        """
        log, snapshot = branching.resolve(self._log, version)
        found = Table(self.name, log, snapshot, context=self._context, pinned=True)
        if log.folder == self._log.folder and snapshot.version == self.version:
            found._view = self._view  # with what was read for it
        return found

    def history(self) -> list[Snapshot]:
        """All snapshots up to the pinned one, newest first: version, time, operation, who, counts, parent.

        On a branch: its own, then those of the main line from which it comes.
        """
        return [snapshot for snapshot in reversed(self._log.history()) if snapshot.version <= self.version]

    def find_commit(self, commit_id: str) -> Snapshot | None:
        """The version that a commit made, if it took place: what to ask after an `OutcomeUnknownError`.

        Looks at the newest version of the table, whatever this handle is pinned to, and back from there.
        """
        return self._log.find_commit(commit_id)

    # --- its metadata as Arrow tables (columns: docs/tables.md) ---

    def snapshots(self) -> pa.Table:
        """The versions up to this one, newest first: when, which operation, by whom, how many rows. The audit log."""
        return self._inspected("snapshots")

    def files(self) -> pa.Table:
        """The files of this version: a row for each fragment's data files, deletion vector and key segment, and for each
        file of the indexes."""
        return self._inspected("files")

    def fragments(self, filter: str | Expr | object | None = None) -> pa.Table:
        """The fragments of this version with counts and bounds; only those that a scan with `filter` would open."""
        return self._inspected("fragments", filter)

    def refs(self) -> pa.Table:
        """The main line, branches and tags with the versions that they name."""
        return self._inspected("refs")

    def _inspected(self, name: str, filter: str | Expr | object | None = None) -> pa.Table:
        from vectorlake.table.inspect import MetadataTable, inspected

        return inspected(self._view, MetadataTable(name), predicate=self._view.bind(filter))

    # --- reading ---

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filter: str | Expr | object | None = None,
        limit: int | None = None,
        *,
        with_row_id: bool = False,
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> Scan:
        """A scan of this version: nothing is read until its rows are asked for.

        Args:
            columns: names, in the order wanted; all by default. `_row_id` and `_last_updated_version` may be named.
            filter: an SQL condition (`"price > 3 AND name LIKE 'a%'"`, see docs/filters.md) or a pyarrow expression.
            limit: at most so many rows.
            with_row_id: add the column `_row_id` at the end.
            batch_size: at most so many rows a batch.
            threads: reading threads; by default one a core (more on remote stores).

        Raises:
            NotFoundError: an unknown column.
            InvalidInputError: a filter that does not parse or fit; shows where, and what was probably meant.
        """
        return make_scan(
            self._view,
            columns=None if columns is None else columns if isinstance(columns, str) else list(columns),  # type: ignore[arg-type]
            filter=filter,
            limit=limit,
            with_row_id=with_row_id,
            batch_size=batch_size,
            threads=threads,
        )

    def take(
        self, row_ids: Sequence[int] | np.ndarray | pa.Array, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows with some row ids, in the order given (an id may be given twice).

        Raises:
            NotFoundError: an id that no live row of this version has.
            InvalidInputError: ids that are not integers.
        """
        fields = self._view.select(None if columns is None else list(columns))
        return take_rows(self._view, _row_ids(row_ids), fields)

    def count(self, filter: str | Expr | object | None = None) -> int:
        """How many rows there are, or for how many the filter is true."""
        return self.scan(columns=[], filter=filter).count()

    def head(self, rows: int = 10) -> pa.Table:
        """The first rows."""
        return self.scan(limit=rows).to_arrow()

    def to_arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        return self.scan().to_arrow()

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a pandas frame."""
        return self.scan().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """All rows as a polars frame."""
        return self.scan().to_polars()

    def to_dataset(self) -> ScanDataset:
        """This version as a `pyarrow.dataset.Dataset` that engines push projections and filters into."""
        return self.scan().to_dataset()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.scan().__arrow_c_stream__(requested_schema)

    # --- searching ---

    def knn(
        self,
        queries: object,
        column: str | None = None,
        k: int | None = 10,
        metric: str | Metric | None = None,
        *,
        filter: str | Expr | object | None = None,
        columns: Sequence[str] = (),
        mode: str | None = None,
        index: str | None = None,
        nprobe: int | None = None,
        ef: int | None = None,
        target_recall: float | None = None,
        pool: int | None = None,
        max_distance: float | None = None,
        offset: int | None = None,
        include: object = None,
        exclude: object = None,
        group_by: str | None = None,
        group_size: int = 1,
        threads: int | None = None,
        device: str | None = None,
    ) -> pa.Table:
        """The `k` nearest rows of each query vector: exactly, as a float64 scan would find them, or by an index.

        By an index some of the nearest may be missed, but distances and order are exact, deleted rows never show, and rows
        that the index does not cover yet are scanned.

        Args:
            queries: one vector, or many: a numpy array [queries, dimension] or [dimension], lists of numbers, an Arrow
                array of vectors, or a table or scan with one vector column. A null query has no matches.
            column: the vector column; may be left out if there is one only.
            k: neighbours a query; fewer come back where fewer rows match. None for all within `max_distance`.
            metric: `"l2"` (squared), `"cosine"` (1 - similarity), `"dot"` (negative product) or `"hamming"` (differing
                bits of packed binary vectors): smaller is nearer. By default the index's, without an index `"l2"`.
            filter: only rows for which it is true are candidates (they are selected before the search, not after).
            columns: further columns of the rows found.
            mode: `"exact"`, `"index"`, or `"auto"`: by an index if one fits. By default exact, unless one of the next
                five arguments asks for an index.
            index: the name of the index; by default the newest that fits column and metric.
            nprobe: partitions of an IVF index to look at.
            ef: rows of a graph index to visit, in the mean.
            target_recall: instead of these, look at as much as reached this recall@k when the index was made; 0.95
                by default.
            pool: rows that are measured exactly for each query.
            max_distance: only rows within this distance.
            offset: skip so many of the nearest; `rank` counts from there. Give 0 for the first page, so that approximate
                pages of one version come from one search (down to rank 1,024) and neither overlap nor leave rows out.
            include: only rows with these row ids are candidates.
            exclude: rows with these row ids are no candidates.
            group_by: a column of which each value may occur `group_size` times among the `k` rows (nulls are one value).
            group_size: see there.
            threads: as many as the process may run on, by default; one by an index for few queries.
            device: a device of torch's, such as `"cuda"`, that finds the candidates of an exact search. The answer is the
                same. None for the CPU; nothing else ever takes a device.

        Returns:
            An Arrow table in the order of queries and ranks: `query` (index, int64), `rank` (from 0, int32),
            `row_id` (int64), `distance` (float64), and `columns`. Null vectors and vectors with NaN or infinity
            never match. Memory is bounded, whatever the table's size.

        Raises:
            InvalidInputError: dimension mismatch, a query with NaN or infinity, k < 1, an unknown metric or mode, an index
                of another metric or column, no index where one is asked for, an unknown device or one where none is used.
            UnsupportedError: torch or the device is not there.
            NotFoundError: an unknown column or index.

        Warns:
            DamagedIndexWarning: a part of the index can't be read, which is named; its rows are scanned.
        """
        from vectorlake.search.choice import Effortful
        from vectorlake.search.knn import knn
        from vectorlake.search.request import Options

        options = Options(
            column=column,
            k=k,
            metric=metric,
            filter=filter,
            columns=columns,
            mode=mode,
            index=index,
            effort=Effortful(nprobe, ef, target_recall, pool),
            max_distance=max_distance,
            offset=offset,
            include=include,
            exclude=exclude,
            group_by=group_by,
            group_size=group_size,
            threads=threads,
            device=device,
        )
        return knn(self._view, queries, options)

    def knn_self(
        self,
        column: str | None = None,
        k: int = 10,
        metric: str | Metric | None = None,
        *,
        target_recall: float | None = None,
        threads: int | None = None,
    ) -> pa.RecordBatchReader:
        """The `k` nearest other rows of every row: a KNN join of the table with itself, exact unless told otherwise.

        Args:
            column: the vector column; may be left out if there is one only.
            k: neighbours of a row.
            metric: as for `knn`.
            target_recall: the share of neighbours that is enough, in (0, 1]; a few are missed then, and the join is quicker.
                No index is needed. The neighbours of a sample, found exactly, tell how carefully to look. Distances stay
                exact. Where nothing quicker is known the join is exact.
            threads: as many as the process may run on, by default.

        Returns:
            Record batches, in the order of the table, computed once the first is read (of large tables some 100,000 rows
            at a time): `row_id`, `rank` (from 0, int32), `neighbor` (its row id) and `distance` (float64). A row never
            matches itself, but does match others with the same vector. Null vectors and those with NaN or infinity have no
            neighbours and are none. Memory is bounded by the results and 2 GiB.

        Raises:
            InvalidInputError: k < 1, an unknown metric, a recall out of range, or a column that holds no single vectors.
            NotFoundError: an unknown column.
        """
        from vectorlake.search.self_join import RESULT, self_join

        batches = self_join(
            self._view, column=column, k=k, metric=metric, target_recall=target_recall, threads=threads
        )
        return pa.RecordBatchReader.from_batches(RESULT, batches)

    def searcher(
        self,
        column: str | None = None,
        *,
        index: str | None = None,
        metric: str | Metric | None = None,
        k: int = 10,
        nprobe: int | None = None,
        ef: int | None = None,
        target_recall: float | None = None,
        pool: int | None = None,
        filter: str | Expr | object | None = None,
        threads: int | None = None,
    ) -> KnnSearcher:
        """A search by an index, planned once for many calls: `t.searcher(k=5).search(vector)` → (row ids, distances).

        For loops in which microseconds count: it answers as `knn` does with the same arguments, as arrays. It stays at this
        version of the table.

        Raises:
            InvalidInputError: no index, or one of another metric or column.
            NotFoundError: an unknown column or index.
        """
        from vectorlake.search.choice import Effortful
        from vectorlake.search.searcher import make_searcher

        return make_searcher(
            self._view,
            column=column,
            index=index,
            metric=metric,
            k=k,
            effort=Effortful(nprobe, ef, target_recall, pool),
            filter=filter,
            threads=threads,
        )

    def explain_knn(
        self, queries: object, column: str | None = None, k: int | None = 10, **options: Any
    ) -> Explanation:
        """Run a search and tell how it was done: index, effort, candidates, bytes, estimated costs, time by stage.

        Takes what `knn` takes. Prints as a plan; the rows found are in it too.
        """
        from vectorlake.search.explain import explain
        from vectorlake.search.request import options_of

        return explain(self._view, queries, options_of(column=column, k=k, **options))

    def evaluate_index(
        self,
        name: str | None = None,
        queries: object = None,
        *,
        column: str | None = None,
        sample: int = 200,
        k: int = 10,
        nprobe: int | None = None,
        ef: int | None = None,
        target_recall: float | None = None,
        pool: int | None = None,
        filter: str | Expr | object | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> Evaluation:
        """Measure what recall an index reaches, against the exact search of the same snapshot, and how fast it is.

        Args:
            name: the index; by default the only one, or the newest on `column`.
            queries: vectors as `knn` takes them, best those that users ask for; by default rows of the table are asked
                for, each left out of its own answer.
            column: see `name`.
            sample: how many rows then.
            k: recall@k is measured.
            nprobe: how much to look at, as for `knn`.
            ef: likewise.
            target_recall: likewise; 0.95 by default.
            pool: likewise.
            filter: only rows for which it is true are candidates, on both sides.
            seed: of the sample.
            threads: as for `knn`.

        Returns:
            Recall, effort, latency and throughput; prints as a summary.

        Raises:
            NotFoundError: no such index.
            InvalidInputError: no index at all, or nothing to ask for.
        """
        from vectorlake.search.choice import Effortful
        from vectorlake.search.evaluate import evaluate

        return evaluate(
            self._view,
            name,
            queries,
            column=column,
            sample=sample,
            k=k,
            effort=Effortful(nprobe, ef, target_recall, pool),
            filter=filter,
            seed=seed,
            threads=threads,
        )

    def search(self, query: object, column: str | None = None) -> Search:
        """A search for one query as a builder: `t.search(v).where("price < 3").select(["name"]).limit(5).to_arrow()`."""
        from vectorlake.search.builder import Search

        return Search(self._view, query, column)

    # --- writing ---

    @traced
    def append(self, data: object, *, progress: Callable[[int], None] | None = None) -> Snapshot:
        """Add rows.

        `data` is anything tabular (see docs/tables.md): Arrow data or a stream of it, pandas, polars, a DuckDB
        relation, a mapping of columns, rows as mappings. Columns are matched by name; streams larger than memory are
        fine. One atomic commit; appends of other writers never conflict.

        Raises:
            InvalidInputError: unknown or missing columns, types or values that don't fit, a primary key that is null
                or occurs twice in the data; nothing is written.
            AlreadyExistsError: a row of the table has one of the primary keys, or another writer added it meanwhile.
        """
        fragments, guard = self._write(data, progress)
        rows = sum(fragment.row_count for fragment in fragments)

        def build(head: Snapshot) -> Delta:
            if guard is not None:
                guard.check(View(head, self._log, self._files))
            return Delta("append", added=tuple(fragments), summary={"added_rows": rows})

        try:
            return self._commit(build)
        except AlreadyExistsError:
            discard(self.store, fragments)
            raise

    @traced
    def overwrite(self, data: object, *, progress: Callable[[int], None] | None = None) -> Snapshot:
        """Replace all rows by others, in one atomic commit; earlier versions stay readable.

        Whatever others appended in the meantime is replaced as well. Raises as `append` does.
        """
        fragments, _ = self._write(data, progress)
        rows = sum(fragment.row_count for fragment in fragments)

        def build(head: Snapshot) -> Delta:
            summary = {"added_rows": rows, "deleted_rows": head.num_rows}
            return Delta("overwrite", added=tuple(fragments), removes_all=True, summary=summary)

        return self._commit(build)

    @traced
    def delete(self, filter: str | Expr | object) -> Snapshot:
        """Delete the rows of this version for which the filter is true, in one atomic commit (deletion vectors).

        Returns the pinned snapshot, without a commit, if no row matches. Rows that others have moved (compaction) or
        deleted in the meantime make no conflict; if others changed any of these rows, the filter is asked again.

        Raises:
            InvalidInputError: no filter, or one that does not parse. `overwrite` with no rows empties a table.
        """
        self._check_writable()
        predicate = self._view.bind(filter)
        if predicate is None:
            raise InvalidInputError(
                "delete needs a filter, such as \"price > 3\"; use delete('true') for all rows"
            )
        deletion = Delete(self._view, predicate, new_id=self._context.new_id)
        return self._commit(deletion) if deletion.positions else self.snapshot

    @traced
    def update(
        self,
        assignments: Mapping[str, object],
        where: str | Expr | object | None = None,
        *,
        mode: str | Mode = Mode.AUTO,
    ) -> Snapshot:
        """Set columns of the rows of this version for which a filter is true, in one atomic commit.

        Args:
            assignments: column → SQL expression over the row's columns (`{"price": "price * 2"}`; a text constant is
                `"'new'"`), or a plain value that is no string.
            where: a filter as for `scan`; all rows without one.
            mode: `"rows"` writes new images of the rows; `"columns"` writes new files of the columns alone, for the
                fragments that hold such rows; `"auto"` does what writes less.

        Rows keep their row ids. Returns the newest snapshot, without a commit, if no row matches. If others changed any
        of these rows or what was read of them, it is evaluated again on the newer version.

        Raises:
            InvalidInputError: an expression that doesn't parse or fit, a null where none may be, a primary key column.
            NotFoundError: an unknown column.
            ConflictError: others changed the table's columns such that the update no longer fits.
        """
        from vectorlake.table.row_change import RowChange
        from vectorlake.table.update import Update

        self._check_writable()
        if not assignments:
            raise InvalidInputError('say what to set, such as {"price": "price * 2"}')
        update = Update(assignments, where, mode=_mode(mode), new_id=self._context.new_id)
        return self._commit(
            RowChange(update, self._view, new_id=self._context.new_id, prepared=update.prepare(self._view))
        )

    def merge(self, data: object, on: Sequence[str] = (), *, mode: str | Mode = Mode.AUTO) -> Merge:
        """Match rows with the table's by key, and say what happens to which; a builder that ends with `execute()`.

            t.merge(rows).when_matched_update(["price"]).when_not_matched_insert().execute()

        Args:
            data: anything tabular, with the columns to match by and any others; no key may occur twice.
            on: columns to match by; the primary key by default.
            mode: how new values of existing rows are written, as for `update`.
        """
        from vectorlake.table.merge import Merge

        self._check_writable()
        columns = (on,) if isinstance(on, str) else tuple(on)
        return Merge(data, columns, self._view, self._commit, self._context.new_id, mode=_mode(mode))

    @traced
    def upsert(self, data: object, *, mode: str | Mode = Mode.AUTO) -> Snapshot:
        """Replace rows that have the same primary key, and insert the others, in one atomic commit.

        Columns that the data lacks stay as they are in rows that are there already, and are the default or null in new
        ones. Replaced rows keep their row ids. Concurrent upserts of one key never leave two rows: the later one wins.

        Raises:
            InvalidInputError: the table has no primary key; a key that is null or occurs twice in the data; columns or
                values that don't fit. Nothing is written.
        """
        merge = self.merge(data, mode=mode).when_matched_update().when_not_matched_insert()
        return replace(merge, name="upsert").execute()

    @traced
    def insert(self, data: object) -> Snapshot:
        """Add those rows whose primary key is not in the table, in one atomic commit; the others are left as they are.

        Raises:
            InvalidInputError: as for `upsert`.
        """
        return replace(self.merge(data).when_not_matched_insert(), name="insert").execute()

    @traced
    def restore(self, version: Version) -> Snapshot:
        """Make the table what it was at an earlier version, as a new version; history is kept.

        Raises:
            NotFoundError: no such version or tag.
            UnsupportedError: a version of another branch.
        """
        old = branching.resolve_here(self._log, version)

        def build(head: Snapshot) -> Delta:
            self._log.load(old.version)  # has not expired by now: its files are needed from here on
            changed: dict[str, str | None] = {
                key: None for key in head.properties if key not in old.properties
            }
            changed |= old.properties
            summary = {"restored_version": old.version}
            return Delta(
                "restore",
                manifests=old.manifests,
                schema=old.schema,
                properties=changed,
                # Newer segments may hold values that rows don't have any more, or not yet again.
                indexes=old.indexes,
                summary=summary,
            )

        return self._commit(build)

    @traced
    def set_properties(self, properties: Mapping[str, str | None]) -> Snapshot:
        """Set properties, or with None remove them.

        Raises:
            InvalidInputError: a property of the format's own with a bad name or value.
            ConflictError: another writer has set one of them to another value in the meantime.
        """
        check_properties({key: value for key, value in properties.items() if value is not None})
        mine = Effects(properties=dict(properties))
        return self._commit_metadata(mine, lambda head: Delta("set-properties", properties=dict(properties)))

    def _commit_metadata(self, mine: Effects, build: Build) -> Snapshot:
        """Commit a change of columns or properties, unless it meets one that others have committed since."""
        base = self.snapshot

        def checked(head: Snapshot) -> Delta | None:
            if not same(base, head):
                check_metadata(mine, base, head)
            return build(head)

        return self._commit(checked)

    def transaction(self) -> Transaction:
        """Several operations as one version, all or nothing: `with table.transaction() as tx: tx.append(…); …`.

        The handle moves to the new version at the end of the block; see `vectorlake.table.transaction.Transaction` for
        what is isolated from what. Transactions over several tables are not offered: stores have no operation that
        would make two tables' commits visible at once.

        Raises:
            ConflictError: at the end of the block, if others changed what the transaction changed.
        """
        from vectorlake.table.transaction import Transaction

        self._check_writable()
        return Transaction(self.name, self._log, self.snapshot, context=self._context, committed=self._move)

    # --- names for versions ---

    def tag(self, name: str, version: Version | None = None) -> Tag:
        """Name a version (this one by default); `at(name)` finds it again, and it never expires.

        Raises:
            AlreadyExistsError: there is a tag or branch of that name.
            UnsupportedError: a version of a branch: tags name versions of the main line.
        """
        branching.require_main(self._log, "tag a version")
        snapshot = self.snapshot if version is None else branching.resolve_here(self._log, version)
        branching.not_staged(snapshot, "tag a version")
        tag = Tag(name, snapshot.version, self._context.clock())
        self._log.put_tag(tag)
        return tag

    def tags(self) -> list[Tag]:
        """All tags, by name."""
        return self._log.tags()

    def delete_tag(self, name: str) -> None:
        """Remove a tag."""
        self._log.delete_tag(name)

    def branch(self, name: str, version: Version | None = None) -> Table:
        """Create a branch at a version (this one by default), and open it for writing.

        Writes to the branch are versions of its own, which nobody sees who reads the table; no data is copied.

        Raises:
            AlreadyExistsError: there is a branch or tag of that name.
            UnsupportedError: this handle is a branch's: branches begin at versions of the main line.
        """
        start = self.snapshot if version is None else branching.resolve_here(self._log, version)
        line = branching.create_branch(
            self._log, name, start, clock=self._context.clock, new_id=self._context.new_id
        )
        return Table(self.name, line, start, context=self._context)

    def checkout(self, name: str) -> Table:
        """Open a branch at its newest version, for reading and writing.

        Raises:
            NotFoundError: no branch of that name.
        """
        line = self._log.on(self._log.get_branch(name))
        return Table(self.name, line, line.latest(), context=self._context)

    def branches(self) -> list[BranchInfo]:
        """All branches, by name, with their newest version and the one at which they begin."""
        return branching.list_branches(self._log)

    def delete_branch(self, name: str) -> None:
        """Remove a branch and its versions at once; files that only they refer to become orphans.

        Raises:
            NotFoundError: no branch of that name.
        """
        self._log.delete_branch(self._log.get_branch(name))

    @traced
    def fast_forward(self, name: str) -> Snapshot:
        """Take a branch over: the table's next version holds what the branch does, whatever number of versions it took.

        One atomic commit of metadata. The branch stays as it is; to go on with it, delete it and create it anew.

        Raises:
            ConflictError: the table has got versions of its own since the branch began; nothing was committed.
            NotFoundError: no branch of that name.
        """
        self._check_writable()
        from vectorlake.table.index_upkeep import forwarded

        snapshot = branching.fast_forward(
            self._log,
            self.snapshot,
            name,
            committer=self._committer,
            clock=self._context.clock,
            indexes=lambda line, tip, fork, version: forwarded(
                View(tip, line, self._files), fork=fork, version=version
            ),
        )
        self._move(snapshot)
        return snapshot

    # --- what changed ---

    def diff(self, before: Version, after: Version | None = None) -> Diff:
        """What differs between two versions (the second is this one by default): rows, columns, properties, files.

        Prints as a summary. What both versions have in common is not read.

        Raises:
            NotFoundError: a version that does not exist, or has expired.
        """
        from vectorlake.table.diff import diff

        one = self.at(before).snapshot
        other = self.snapshot if after is None else self.at(after).snapshot
        return diff(self._log, one, other, self.changes(one.version, other.version, by="net"))

    def changes(
        self,
        from_version: Version,
        to_version: Version | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: str | Expr | object | None = None,
        by: str | By = "commit",
        threads: int | None = None,
    ) -> Changes:
        """The rows that changed after one version, up to another and with it (this one by default): a change feed.

        Args:
            from_version: a version number, tag or time; 0 is the table before it was created.
            to_version: the last version told; also a branch.
            columns: names; all by default. Only changes of these columns count as updates.
            filter: an SQL condition on the rows told, `_change_type` and its kin included (`"_change_type = 'insert'"`).
            by: `"commit"` tells each version's changes in turn; `"net"` the difference between the two ends only.
            threads: reading threads.

        Returns:
            A lazy stream with the columns `_change_type` (`insert`, `delete`, `update_preimage`, `update_postimage`),
            `_commit_version`, `_commit_timestamp`, `_row_id`, and the table's columns as they are at `to_version`. An
            update keeps its row id, and is told only if a value differs: rows that compaction moved are no change. What
            did not change is not read; memory is bounded but for 21 bytes for each row that was moved or replaced.

        Raises:
            NotFoundError: a version that does not exist, or has expired: `by="net"` needs the two ends only.
            UnsupportedError: the versions lie on different branches.
        """
        from vectorlake.table.changes import make_changes

        stop = self.snapshot if to_version is None else to_version
        return make_changes(
            self._log, self._files, from_version, stop, columns=columns, filter=filter, by=by, threads=threads
        )

    @traced
    def verify(self) -> list[Finding]:
        """Check every file of this version (there, length, checksum, row counts); an empty list means all is well."""
        from vectorlake.table.verify import verify

        return list(verify(self._view))

    @traced
    def compact(
        self,
        *,
        target_rows: int | None = None,
        sort_by: str | Sequence[str | tuple[str, str]] | None = None,
        deleted_share: float = 0.1,
        foreign: str = "leave",
        memory_limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Snapshot | CompactionPlan:
        """Rewrite small fragments as few large ones, leave out deleted rows, and put columns into the files that the
        table's properties ask for today; with `sort_by`, rewrite all rows in an order, so that filters prune better.

        Rows keep their ids and versions; foreign files are left alone. One atomic commit. Fragments that others have
        rewritten meanwhile are left out of it, rows that others deleted stay deleted, and work of others that meets
        a compaction follows its rows.

        Args:
            target_rows: rows of a fragment; by default the property `write.fragment-rows`.
            sort_by: a column, or several, each a name or `(name, "desc")`; nulls last.
            deleted_share: fragments with more deleted rows than this share are rewritten without them.
            foreign: `"copy"` takes rows in files of others into the table's own.
            memory_limit: bytes to use, roughly; 512 MiB by default.
            dry_run: only tell: returns the plan, which prints as a summary.
            progress: called with (rows done, rows in all).

        Returns:
            The newest snapshot (without a commit if there is nothing to do), or the plan.

        Raises:
            NotFoundError: an unknown column to sort by.
            UnsupportedError: columns to sort by that don't fit the memory limit, or copying the files of a table that
                is synced with a source.
        """
        from vectorlake.table.compact import compact
        from vectorlake.table.index_upkeep import keeping_covered

        self._check_writable()
        plan, compaction = compact(
            self._view,
            target_rows=target_rows,
            sort_by=sort_by,
            deleted_share=deleted_share,
            foreign=foreign,
            memory_limit=memory_limit,
            dry_run=dry_run,
            new_id=self._context.new_id,
            progress=progress,
        )
        if dry_run:
            return plan
        if compaction is None:
            return self.snapshot
        return self._commit(keeping_covered(compaction, lambda head: View(head, self._log, self._files)))

    @traced
    def rewrite_manifests(self, by: str | None = None, *, dry_run: bool = False) -> Snapshot | ManifestPlan:
        """Merge small manifests, or with `by` sort all fragments by a column's statistics into manifests anew.

        Planning then opens fewer manifests, and with `by` only those that may hold what a filter on the column asks for.
        Contents stay as they are. One atomic commit, made anew if others commit meanwhile.

        Args:
            by: a column, such as a day or a tenant, by which filters usually select.
            dry_run: only tell: returns the plan, which prints as a line.

        Returns:
            The newest snapshot (without a commit if there is nothing to do), or the plan.

        Raises:
            NotFoundError: an unknown column.
            InvalidInputError: a column without statistics.
        """
        from vectorlake.table.manifest_rewrite import ManifestRewrite

        self._check_writable()
        rewrite = ManifestRewrite(self._log, by)
        return rewrite.plan(self.snapshot) if dry_run else self._commit(rewrite)

    @traced
    def expire_snapshots(
        self,
        *,
        older_than: dt.timedelta | dt.datetime | None = dt.timedelta(days=5),
        keep_last: int = 1,
        versions: Sequence[int] | None = None,
        dry_run: bool = False,
    ) -> Expiry:
        """Let old versions expire: they can't be opened any more, and `collect_orphans` removes what only they need.

        The newest version, tagged ones, and what branches need never expire. On a branch, its own versions expire.

        Args:
            older_than: versions that were the newest at any time since then stay: an age, a time, or None for any age.
            keep_last: so many of the newest versions stay, whatever their age.
            versions: expire exactly these instead, whatever their age.
            dry_run: only tell, with the files, bytes and rows that only these versions need.

        Raises:
            InvalidInputError: one of `versions` is tagged or the newest; or this machine's clock and the store's disagree
                by more than an hour, so that ages can't be told. Nothing was removed.
            NotFoundError: there is no such version.
        """
        from vectorlake.table.expiry import expire

        self._check_writable()
        return expire(
            self._log,
            older_than=older_than,
            keep_last=keep_last,
            versions=versions,
            clock=self._context.clock,
            new_id=self._context.new_id,
            dry_run=dry_run,
        )

    @traced
    def repair(self, *, allow: Sequence[str] = (), dry_run: bool = True) -> list[Repair] | Snapshot:
        """Tell what can be done about each thing that `verify` finds, or with `dry_run=False` do it, as one commit.

        What can be rebuilt without loss (key segments) is rebuilt, damaged segments leave their indexes, and damaged balls
        are forgotten. Lost files
        are given up only where `allow` names how: `"lose-values"` lets columns that may be null read as null,
        `"lose-rows"` lets go of the rows of fragments of which more than that is lost. Earlier versions keep referring to
        what they did.

        Returns:
            The plan, one entry a finding; or the newest snapshot.

        Raises:
            InvalidInputError: an unknown way of losing something.
            ConflictError: another writer has committed meanwhile; nothing was repaired.
        """
        from vectorlake.table.repair import Remedy, Repairing, plan_repairs

        self._check_writable()
        known = [str(Remedy.LOSE_VALUES), str(Remedy.LOSE_ROWS)]
        if isinstance(allow, str) or set(allow) - set(known):
            raise InvalidInputError(f"allow takes a list of {' and '.join(known)}, not {allow!r}")
        repairs = plan_repairs(self._view)
        if dry_run:
            return repairs
        harmless = (Remedy.REBUILD_KEYS, Remedy.DROP_BALLS, Remedy.DROP_SEGMENT)
        chosen = [one for one in repairs if one.remedy in (*harmless, *allow)]
        return self._commit(Repairing(self._view, chosen, new_id=self._context.new_id))

    @traced
    def collect_orphans(
        self, *, older_than: dt.timedelta = dt.timedelta(days=3), dry_run: bool = False
    ) -> Orphans:
        """Remove files that no version refers to: of writers that were killed or lost a race, of versions that expired.

        Args:
            older_than: leave younger files alone, by the store's clock: a running writer's files are unreferenced until it
                commits.
            dry_run: only tell.

        Returns:
            The paths removed (or that would be), relative to the table's folder; `size` is their bytes.

        Raises:
            CorruptDataError: a snapshot or manifest can't be read, so it can't be told what is unused.
        """
        from vectorlake.table.orphans import collect

        self._check_writable()
        return collect(self._log, older_than=older_than, new_id=self._context.new_id, dry_run=dry_run)

    # --- the insides ---

    def resolve(self, uri: str) -> tuple[Store, str]:
        """The store and path of a file anywhere, by its absolute URI, with the lake's storage options (for connectors)."""
        return self._context.resolve(uri)

    def commit(self, build: Build) -> Snapshot:
        """Commit a change that is described relative to a head (for connectors and jobs); moves the handle."""
        return self._commit(build)

    def _commit(self, build: Build) -> Snapshot:
        self._check_writable()
        snapshot = self._committer.commit(self.snapshot, build)
        self._move(snapshot)
        return snapshot

    def _move(self, snapshot: Snapshot) -> None:
        if snapshot.version > self.version:
            self._view = View(snapshot, self._log, self._files)

    def _check_writable(self) -> None:
        if self._pinned:
            raise UnsupportedError(
                f"this handle of {self.name} is pinned to version {self.version} and can't be written to: open the table "
                "without at(), or restore that version"
            )

    def _write(
        self, data: object, progress: Callable[[int], None] | None
    ) -> tuple[list[Fragment], KeyGuard | None]:
        """Rows as new fragments, and what keeps their primary keys unique if the table has one."""
        self._check_writable()
        fragments, keys = write_rows(self._view, data, new_id=self._context.new_id, progress=progress)
        if keys is None:
            return fragments, None
        key = key_fields(self.snapshot.schema, self.snapshot.primary_key)
        guard = KeyGuard([self._view.reader(fragment) for fragment in fragments], key, keys.hashes)
        try:
            guard.check_distinct()
        except InvalidInputError:
            discard(self.store, fragments)
            raise
        return fragments, guard


def _mode(mode: str | Mode) -> Mode:
    try:
        return Mode(mode)
    except ValueError as e:
        raise InvalidInputError(f"mode must be 'auto', 'rows' or 'columns', not {mode!r}") from e


def _row_ids(row_ids: object) -> np.ndarray:
    if isinstance(row_ids, pa.ChunkedArray | pa.Array):
        row_ids = row_ids.to_numpy(zero_copy_only=False)
    ids = np.asarray(row_ids)
    if ids.ndim != 1 or (len(ids) and not np.issubdtype(ids.dtype, np.integer)):
        raise InvalidInputError(f"row ids must be a list of integers, not {row_ids!r}")
    return ids.astype(np.int64)
