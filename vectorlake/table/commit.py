"""The commit loop: apply a change to the head, put the next snapshot if nobody else has, else apply it to the newer head."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from vectorlake.clock import Clock
from vectorlake.errors import AlreadyExistsError, ConflictError, OutcomeUnknownError, StorageError
from vectorlake.ids import NewId
from vectorlake.metadata.manifest import Manifest, concat
from vectorlake.metadata.snapshot import STAGED, ManifestRef, Snapshot
from vectorlake.metadata.tombstone import Tombstone
from vectorlake.plan.commit import (
    MANIFEST_FRAGMENTS,
    Delta,
    apply_updates,
    check_found,
    check_required,
    merge_plan,
    next_snapshot,
    numbered,
    touched,
    without_stale_bounds,
)
from vectorlake.schema import Schema
from vectorlake.table.log import TableLog
from vectorlake.tracing import Span, span
from vectorlake.turns import turn

ATTEMPTS: Final = 100
"""How often a commit is tried against ever newer heads before it gives up with a conflict."""

_TURN_S: Final = 0.5
"""Of many writers on one machine that race for the next version one wins, and what the others prepared is wasted: on local
disk they wait so many seconds for each other. Who goes ahead is held up by put-if-absent."""
_POLL_S: Final = 0.0005

Build: TypeAlias = Callable[[Snapshot], Delta | None]
"""Describes the change relative to a head, None if there is nothing to change; called again for each newer head, and may
raise `ConflictError`."""

Make: TypeAlias = Callable[[Snapshot, str], Snapshot | None]
"""Builds the snapshot that follows a head, with a commit id, or None if nothing is to be committed; called again for each
newer head."""

Sleep: TypeAlias = Callable[[float], None]


class Committer:
    """Commits changes to one table. Everything outside of the store (time, ids, waiting) is passed in."""

    def __init__(
        self,
        log: TableLog,
        *,
        clock: Clock,
        new_id: NewId,
        audit: Mapping[str, str] | None = None,
        sleep: Sleep = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._audit = dict(audit or {})
        self._sleep = sleep
        self._rng = rng or random.Random()

    def commit(self, base: Snapshot, build: Build) -> Snapshot:
        """Commit the change that `build` describes, on top of whatever the table's newest version is.

        All or nothing: readers see the table before or after, never between. Idempotent: if the store applied the
        commit but lost its reply, the snapshot is recognised by its commit id.

        Raises:
            ConflictError: another writer changed what the change relies on, or won every race.
            OutcomeUnknownError: the store failed such that it can't be told whether the commit took place.
            StorageError: the store refused; nothing was committed.
        """

        def make(head: Snapshot, commit_id: str) -> Snapshot | None:
            delta = build(head)
            return None if delta is None else self._next(head, delta, commit_id)

        return self.commit_made(base, make)

    def commit_made(self, base: Snapshot, make: Make) -> Snapshot:
        """Commit the snapshot that `make` builds on top of whatever is newest; atomicity and errors as for `commit`."""
        commit_id = self._new_id()
        head = base
        with span("commit", table=self._log.store.uri, base=base.version) as told:
            for attempt in range(ATTEMPTS):
                told.set(attempts=attempt + 1)
                with turn(self._log.store.local_path(self._log.folder), wait_s=_TURN_S, poll_s=_POLL_S):
                    head = self._log.latest(after=head)
                    snapshot = make(head, commit_id)
                    if snapshot is None:
                        return head
                    outcome = self._put(snapshot)
                if outcome is not None:
                    self._log.hint(outcome.version)
                    _tell(told, outcome)
                    return outcome
                self._sleep(self._rng.uniform(0, min(0.001 * 2 ** min(attempt, 7), 0.1)))
            raise ConflictError(
                f"other writers won {ATTEMPTS} commits in a row at {self._log.store.uri}; nothing was committed: retry"
            )

    def stage(self, working: Snapshot, delta: Delta, *, version: int) -> Snapshot:
        """What a transaction sees after one of its operations: a snapshot that is never stored (its manifests are).

        Every operation of a transaction gives its values the `version` that the whole will have.
        """
        staged = self._next(working, delta, f"{STAGED}{self._new_id()}", version=version)
        return msgspec.structs.replace(staged, version=version, parent=version - 1)

    def create(self, empty: Snapshot, delta: Delta) -> Snapshot:
        """Commit a table's first snapshot: `delta` on top of an `empty` one, which itself is never stored.

        Raises:
            AlreadyExistsError: there is a table already.
        """
        with span("commit", table=self._log.store.uri, base=0, attempts=1) as told:
            snapshot = msgspec.structs.replace(self._next(empty, delta, self._new_id()), parent=None)
            outcome = self._put(snapshot)
            if outcome is None:
                raise AlreadyExistsError(
                    f"there is a table at {self._log.store.uri} already: open it, or choose another name"
                )
            self._log.hint(outcome.version)
            _tell(told, outcome)
            return outcome

    def _put(self, snapshot: Snapshot) -> Snapshot | None:
        """The snapshot if it is committed, None if another one has its version; with who committed it in its summary."""
        snapshot = msgspec.structs.replace(snapshot, summary={**self._audit, **snapshot.summary})
        try:
            self._log.put_snapshot(snapshot)
            return snapshot
        except (AlreadyExistsError, StorageError) as error:
            if isinstance(error, OutcomeUnknownError):
                raise
            # Either another writer won, or our own write was applied and its reply was lost: the file tells.
            there = self._read_back(snapshot, error)
            if there is None:
                if isinstance(error, AlreadyExistsError):
                    raise OutcomeUnknownError(
                        f"version {snapshot.version} of {self._log.store.uri} exists but can't be read",
                        commit_id=snapshot.commit_id,
                    ) from error
                raise
            return snapshot if there.commit_id == snapshot.commit_id else None

    def _read_back(self, snapshot: Snapshot, error: Exception) -> Snapshot | Tombstone | None:
        try:
            return self._log.entry(snapshot.version)
        except StorageError as second:
            raise OutcomeUnknownError(
                f"the store failed during a commit to {self._log.store.uri} ({error}) and can't be asked "
                f"whether it took place ({second}); look for commit id "
                f"{snapshot.commit_id} in the table's history before a retry",
                commit_id=snapshot.commit_id,
            ) from error

    def _next(self, head: Snapshot, delta: Delta, commit_id: str, *, version: int | None = None) -> Snapshot:
        version = head.version + 1 if version is None else version
        schema = delta.schema or head.schema
        refs: Sequence[ManifestRef] = head.manifests
        fresh: list[Manifest] = []
        if delta.manifests is not None:
            refs = delta.manifests
        elif delta.removes_all:
            refs = ()
        elif delta.updates or delta.removed:
            refs, fresh = self._updated(refs, delta, version)
        if delta.schema is not None and delta.manifests is None:
            refs = without_stale_bounds(refs, head.schema, delta.schema)
        check_required(delta.added, schema)
        added, next_fragment, next_row = numbered(delta.added, head, version)
        if added:
            fresh.append(Manifest.of(added))
        kept = self._written(refs, fresh, schema)
        return next_snapshot(
            head,
            delta,
            commit_id=commit_id,
            now_ms=self._clock(),
            manifests=tuple(kept),
            next_fragment_id=next_fragment,
            next_row_id=next_row,
        )

    def _written(
        self, refs: Sequence[ManifestRef], fresh: Sequence[Manifest], schema: Schema
    ) -> list[ManifestRef]:
        """All manifests of a snapshot: those that stay and those that are new, of which small ones are written as one."""
        large = [manifest for manifest in fresh if len(manifest) >= MANIFEST_FRAGMENTS]
        small = [manifest for manifest in fresh if 0 < len(manifest) < MANIFEST_FRAGMENTS]
        count = sum(len(manifest) for manifest in small)
        # Planned before it is written, so that what the plan merges at once is written once.
        pending = [ManifestRef(path="", size=0, checksum="", fragments=count, rows=0)] if small else []
        kept, merged = merge_plan([*refs, *pending])
        written = [ref for ref in kept if ref.path]
        written += [self._log.put_manifest(manifest, schema) for manifest in large]
        if any(not ref.path for ref in merged):
            small += [self._log.manifest(ref) for ref in merged if ref.path]
            merged = []
        if small:
            written.append(self._log.put_manifest(concat(small), schema))
        if merged:
            joined = concat([self._log.manifest(ref) for ref in merged])
            written.append(self._log.put_manifest(joined, schema))
        return written

    def _updated(
        self, refs: Sequence[ManifestRef], delta: Delta, version: int
    ) -> tuple[list[ManifestRef], list[Manifest]]:
        """The manifests that no removal or update of the delta concerns, and the others after these."""
        wanted = sorted({update.fragment_id for update in delta.updates} | delta.removed)
        candidates = {ref.path for ref in touched(refs, wanted)}
        found: frozenset[int] = frozenset()
        kept: list[ManifestRef] = []
        changed: list[Manifest] = []
        for ref in refs:
            if ref.path not in candidates:
                kept.append(ref)
                continue
            before = self._log.manifest(ref)
            after, here = apply_updates(before, delta, version)
            found |= here
            if after is before:
                kept.append(ref)
            elif len(after):
                changed.append(after)
        check_found(delta, found)
        return kept, changed


def _tell(told: Span, snapshot: Snapshot) -> None:
    """What a commit did, for its span: counts, but neither columns nor who it was."""
    if told.recording:
        told.set(version=snapshot.version, operation=snapshot.operation)
        told.set(**{key: value for key, value in snapshot.summary.items() if isinstance(value, int)})
