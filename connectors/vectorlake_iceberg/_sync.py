"""Follow a source: bring an imported table to the source's newest version in one commit, at the cost of what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.utils.config import Config
from pyroaring import BitMap64

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.extend import (
    Delta,
    Fragment,
    FragmentUpdate,
    Schema,
    Snapshot,
    View,
    foreign_files,
    fragments_of_files,
    random_id,
)
from vectorlake_iceberg._carry import Carried, Lost, Matching, New, Old, Updated, carry
from vectorlake_iceberg._diff import Change, changes
from vectorlake_iceberg._fragments import fragments_over, layout_of, write_deletes
from vectorlake_iceberg._import import DELETES_FOLDER
from vectorlake_iceberg._read import Source, SourceLike, load, newest_metadata, open_source, refreshed
from vectorlake_iceberg._state import SourceState, required_state, state_of
from vectorlake_iceberg._types import FIRST_OWN_ID, merged_schema, schema_of


def sync(
    table: vl.Table,
    source: SourceLike | None = None,
    *,
    updated: str | Updated = Updated.CLEAR,
    lost: str | Lost = Lost.REFUSE,
) -> Snapshot:
    """Bring a table that `import_table` made to its source's newest version, in one atomic commit.

    Appends, deletes, overwrites, compactions, rollbacks, and changes of schema and partitioning are followed; only manifests
    and files that changed are read. Rows that the source rewrote into other files keep their row ids and the values of the
    columns added here, and rows deleted here stay deleted. They are found again by the source's row lineage (v3), else by
    its identifier fields, else by all their values.

    Args:
        table: the table; the handle moves to the new version.
        source: the source table loaded from its catalog (which is asked for its newest version), or the location of a
            metadata file or of the table's folder. Without it, the catalog that the table was imported from is asked if
            pyiceberg's configuration knows it by name, else the newest metadata file in the source's folder is taken.
        updated: what becomes of columns added here in rows that the source changed but that are known to be the same:
            `"clear"` empties them, so that `backfill_column` computes them anew; `"keep"` leaves them.
        lost: what to do if the source has removed old files that are needed to find rewritten rows again, and the table has
            columns of its own: `"refuse"`, or `"renew"` to take such rows as new ones.

    Returns:
        The new snapshot; the present one, without a commit, if the source has not changed.

    Raises:
        InvalidInputError: the table was not imported from Iceberg, the source is another table (its UUID differs), or a
            column of the source took the name of one added here.
        NotFoundError: the source can't be found without `source`.
        UnsupportedError, CorruptDataError: as for `import_table`; nothing is committed.
        ConflictError: another writer changed what the sync relies on, again and again.
    """
    table.refresh()
    state = required_state(table.properties, table.name)
    opened = _opened(table, state, source)
    _check_same_table(table, state, opened)
    target = state_of(opened)
    target = replace(
        target, catalog=target.catalog or state.catalog, identifier=target.identifier or state.identifier
    )
    if _shows(state, target):
        return table.snapshot
    work = _Sync(table, opened, target, _choice(Updated, "updated", updated), _choice(Lost, "lost", lost))
    try:
        return table.commit(work.delta)
    except _AlreadySyncedError:
        return table.refresh().snapshot


def is_current(table: vl.Table, source: SourceLike | None = None) -> bool:
    """Whether a table shows its source's newest version; `source` and errors as for `sync`."""
    state = required_state(table.properties, table.name)
    opened = _opened(table, state, source)
    _check_same_table(table, state, opened)
    return _shows(state, state_of(opened))


def _shows(state: SourceState, target: SourceState) -> bool:
    return (state.snapshot_id, state.schema_id) == (target.snapshot_id, target.schema_id)


def _choice(kind: Any, name: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInputError(
            f"{name} must be one of {', '.join(repr(str(one)) for one in kind)}, not {value!r}"
        ) from None


def _check_same_table(table: vl.Table, state: SourceState, source: Source) -> None:
    if source.uuid != state.table_uuid:
        raise InvalidInputError(
            f"{source.location} is another table (UUID {source.uuid}) than the one that {table.name} was imported from "
            f"(UUID {state.table_uuid}): the source was dropped and made anew, or this is the wrong one; import it under "
            "another name"
        )


def _opened(table: vl.Table, state: SourceState, source: SourceLike | None) -> Source:
    if source is not None:
        return refreshed(source, table.resolve)
    known = Config().get_catalog_config(state.catalog) if state.catalog else None
    if state.catalog and state.identifier and known is not None:
        try:
            return open_source(
                load_catalog(state.catalog, **cast("dict[str, str]", known)).load_table(state.identifier),
                table.resolve,
            )
        except NoSuchTableError as e:
            raise NotFoundError(
                f"catalog {state.catalog!r} has no table {state.identifier!r} any more: pass the source to sync with"
            ) from e
    try:
        return load(newest_metadata(state.metadata_location.rpartition("/")[0], table.resolve), table.resolve)
    except (NotFoundError, InvalidInputError) as e:
        raise type(e)(
            f"the source of {table.name} can't be found by its last metadata file, {state.metadata_location}: {e}. Pass it: "
            "sync(table, catalog.load_table(…))"
        ) from e


class _AlreadySyncedError(Exception):
    """Another writer's sync reached the same version first."""


@dataclass
class _Sync:
    """The change to a head of the table, made again for each newer head; what does not depend on the head is kept."""

    table: vl.Table
    source: Source
    target: SourceState
    updated: Updated
    lost: Lost
    _changes: dict[int | None, Change] = field(default_factory=dict)
    _fragments: dict[int | None, list[Fragment]] = field(default_factory=dict)
    _carried: dict[object, list[Carried]] = field(default_factory=dict)

    def delta(self, head: Snapshot) -> Delta:
        state = required_state(head.properties, self.table.name)
        if _shows(state, self.target):
            raise _AlreadySyncedError
        change = self._change(head, state)
        schema = self._schema(head, state)
        view = View(head, self.table.view.log, self.table.view.files)
        at_source = schema_of(self.source.schema(self.target.schema_id))
        added = self._added(state, change, at_source)
        staying = {
            uri: bitmap
            for uri, bitmap in change.deleted.items()
            if uri not in {one.uri for one in change.added}
        }
        found = fragments_of_files(view.log, head, {*change.removed, *staying, *change.restored})
        removed = [fragment for uri in sorted(change.removed) for fragment in found.get(uri, ())]
        removed.sort(key=lambda fragment: fragment.id)
        carried = self._carry(view, state, change, removed, added, schema, at_source)
        bitmaps: dict[int, BitMap64] = {}
        for index, (entry, one) in enumerate(zip(change.added, carried, strict=True)):
            if deleted := change.deleted.get(entry.uri, BitMap64()) | one.deleted:
                bitmaps[-1 - index] = deleted
        here_deleted = 0
        for uri in staying.keys() | change.restored.keys():
            for fragment in found.get(uri, ()):
                before = view.load_deletes(fragment.deletes) if fragment.deletes else BitMap64()
                after = (before - change.restored.get(uri, BitMap64())) | staying.get(uri, BitMap64())
                if after != before:
                    bitmaps[fragment.id] = after
                    here_deleted += len(after) - len(before)
        vectors = write_deletes(view.store, bitmaps, f"{DELETES_FOLDER}/{random_id()}.dv")
        fragments = [
            _with(fragment, one, vectors.get(-1 - index))
            for index, (fragment, one) in enumerate(zip(added, carried, strict=True))
        ]
        kept = sum(one.kept for one in carried)
        gone = sum(fragment.live_rows for fragment in removed)
        return Delta(
            "sync",
            added=tuple(fragments),
            removed=frozenset(fragment.id for fragment in removed),
            updates=tuple(FragmentUpdate(key, deletes=vector) for key, vector in vectors.items() if key >= 0),
            schema=schema,
            properties=self.target.to_properties(),
            summary={
                "source": self.target.metadata_location,
                "source_snapshot_id": self.target.snapshot_id,
                "added_files": len(fragments),
                "removed_files": len(removed),
                "added_rows": sum(fragment.live_rows for fragment in fragments) - kept,
                "deleted_rows": gone - kept + here_deleted,
                "kept_rows": kept,
                "updated_rows": sum(one.updated for one in carried),
                "manifests_read": change.manifests_read,
            },
        )

    def _change(self, head: Snapshot, state: SourceState) -> Change:
        if state.snapshot_id not in self._changes:
            log = self.table.view.log
            self._changes[state.snapshot_id] = changes(
                self.source, state, self.target, registered=lambda: frozenset(foreign_files(log, head))
            )
        return self._changes[state.snapshot_id]

    def _schema(self, head: Snapshot, state: SourceState) -> Schema | None:
        if state.schema_id == self.target.schema_id:
            return None
        new = schema_of(self.source.schema(self.target.schema_id))
        known = {schema.schema_id for schema in self.source.metadata.schemas}
        mine = Schema(tuple(one for one in head.schema.fields if one.id < FIRST_OWN_ID))
        old = schema_of(self.source.schema(state.schema_id)) if state.schema_id in known else mine
        return merged_schema(head.schema, old, new)

    def _added(self, state: SourceState, change: Change, at_source: Schema) -> list[Fragment]:
        if state.snapshot_id not in self._fragments:
            self._fragments[state.snapshot_id] = fragments_over(
                self.source,
                change.added,
                schema=at_source,
                layout=layout_of(self.source, at_source, self.target.name_mapping),
                resolve=self.table.resolve,
            )
        return self._fragments[state.snapshot_id]

    def _carry(
        self,
        view: View,
        state: SourceState,
        change: Change,
        removed: Sequence[Fragment],
        added: Sequence[Fragment],
        schema: Schema | None,
        at_source: Schema,
    ) -> list[Carried]:
        own = [one for one in (schema or view.snapshot.schema).fields if one.id >= FIRST_OWN_ID]
        key = (tuple(_identity(fragment) for fragment in removed), tuple(one.id for one in own))
        if key not in self._carried:
            self._carried[key] = carry(
                view,
                [
                    Old(
                        fragment,
                        change.before.get(_uri(fragment), BitMap64()),
                        change.lineage.get(_uri(fragment)),
                    )
                    for fragment in removed
                ],
                [
                    New(
                        fragment,
                        change.deleted.get(entry.uri, BitMap64()),
                        entry.first_row_id,
                        entry.sequence,
                    )
                    for fragment, entry in zip(added, change.added, strict=True)
                ],
                own,
                self._matching(state, change, at_source),
                updated=self.updated,
                lost=self.lost,
            )
        return self._carried[key]

    def _matching(self, state: SourceState, change: Change, at_source: Schema) -> Matching:
        identifiers = set(self.source.schema(self.target.schema_id).identifier_field_ids)
        named = tuple(one for one in at_source.fields if one.id in identifiers)
        return Matching(
            at_source.fields,
            named if len(named) == len(identifiers) else (),
            state.sequence_number,
            lineage=all(uri in change.lineage for uri in change.removed)
            and all(entry.first_row_id is not None for entry in change.added),
        )


def _uri(fragment: Fragment) -> str:
    return next(file.path for file in fragment.files if file.foreign)


def _identity(fragment: Fragment) -> object:
    """What a fragment's rows and values depend on."""
    return fragment.id, tuple((file.path, file.sequence) for file in fragment.files), fragment.deletes


def _with(fragment: Fragment, carried: Carried, deletes: Any) -> Fragment:
    (source,) = fragment.files
    return msgspec.structs.replace(
        fragment,
        files=(msgspec.structs.replace(source, sequence=carried.sequence), *carried.files),
        bounds={**fragment.bounds, **carried.bounds},
        deletes=deletes,
    )
