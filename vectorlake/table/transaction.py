"""Several operations on one table as one commit: all or nothing, each seeing what those before it did."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from vectorlake.errors import ConflictError, InvalidInputError, UnsupportedError
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import Delta
from vectorlake.plan.conflict import Action, Effects, effects, verdict
from vectorlake.table.commit import Build
from vectorlake.table.context import Context
from vectorlake.table.differ import difference
from vectorlake.table.follow import newly_deleted, replaced_fields, same
from vectorlake.table.log import TableLog
from vectorlake.table.table import Table
from vectorlake.table.view import View

_COUNTED: Final = ("_rows", "_fragments", "_files", "_bytes")
"""How the names of counts end, which add up over several operations."""


class Transaction(Table):
    """A table inside `with table.transaction() as tx:`; what is done to `tx` is committed as one version at the end.

    `tx` reads and writes like the table and sees its own changes; nobody else does before the end of the block. After
    an exception nothing is committed. Isolation is that of snapshots: `tx` reads the version at which it began, and
    fails with `ConflictError` at the end if others changed rows, columns or properties that it changes too. What
    others did elsewhere (appends, compaction, other rows) makes no conflict.
    """

    def __init__(
        self,
        name: str,
        log: TableLog,
        snapshot: Snapshot,
        *,
        context: Context,
        committed: Callable[[Snapshot], None],
    ) -> None:
        super().__init__(name, log, snapshot, context=context)
        self._base = snapshot
        self._steps: list[Build] = []
        self._operations: list[Delta] = []
        self._committed = committed
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        if error is None:
            self.commit_all()
        else:
            self.rollback()

    def commit_all(self) -> Snapshot:
        """Commit everything so far as one version and end the transaction; the base's snapshot if there is nothing.

        Raises:
            ConflictError: others changed what this transaction changed; nothing was committed.
        """
        self._check_writable()
        self._open = False
        if not self._steps:
            return self._base
        snapshot = self._committer.commit_made(self._base, self._make)
        self._committed(snapshot)
        return snapshot

    def rollback(self) -> None:
        """End the transaction without a commit; files that it wrote are orphans, which collection removes."""
        self._open = False

    def refresh(self) -> Table:
        """Refused: a transaction reads the version at which it began."""
        raise UnsupportedError("a transaction stays at the version at which it began; end it first")

    def transaction(self) -> Transaction:
        """Refused: transactions don't nest."""
        raise UnsupportedError("transactions don't nest: go on with this one")

    def fast_forward(self, name: str) -> Snapshot:
        """Refused: taking a branch over is a version of its own."""
        raise UnsupportedError(f"a transaction can't take over branch {name!r}: end it first")

    def _index_view(self) -> View:
        # Rows of the transaction's own have no final row ids: they are left to be scanned.
        if any(delta.operation == "restore" for delta in self._operations):
            raise UnsupportedError(
                "a transaction that has restored a version can't build indexes: end it first"
            )
        return View(self._base, self._log, self._files)

    def _commit(self, build: Build) -> Snapshot:
        self._check_writable()
        staged, delta = self._apply(self.snapshot, build, self._base.version + 1)
        if delta is None:
            return staged
        self._steps.append(build)
        self._operations.append(delta)
        self._view = View(staged, self._log, self._files)
        return staged

    def _check_writable(self) -> None:
        if not self._open:
            raise InvalidInputError(f"this transaction on {self.name} has ended: begin another one")

    def _make(self, head: Snapshot, commit_id: str) -> Snapshot | None:
        """The one snapshot of all operations on top of `head`; None if by now there is nothing left to do."""
        result, deltas = self.snapshot, self._operations
        if not same(head, self._base):
            self._check_apart(head)
            result, deltas = head, []
            for build in self._steps:
                result, delta = self._apply(result, build, head.version + 1)
                deltas += [] if delta is None else [delta]
            if not deltas:
                return None
        names = [delta.operation for delta in deltas]
        return msgspec.structs.replace(
            result,
            commit_id=commit_id,
            parent=head.version,
            operation=names[0] if len(names) == 1 else "transaction",
            summary=_summary(deltas, names, result),
        )

    def _apply(self, working: Snapshot, build: Build, version: int) -> tuple[Snapshot, Delta | None]:
        delta = build(working)
        if delta is None:
            return working, None
        staged = self._committer.stage(working, delta, version=version)
        return staged, msgspec.structs.replace(delta, summary=staged.summary)

    def _check_apart(self, head: Snapshot) -> None:
        names = frozenset(delta.operation for delta in self._operations)
        mine = self._effects(self.snapshot, names)
        found = verdict(mine, self._effects(head, self._operations_until(head)))
        if found.action >= Action.REEVALUATE:
            raise ConflictError(
                f"others have committed to {self.name} since this transaction began at version {self._base.version}: "
                f"{found.reason}; nothing was committed: refresh the table and run the transaction again"
            )

    def _effects(self, after: Snapshot, operations: frozenset[str]) -> Effects:
        between = difference(self._log, self._base, after)
        view = self._view
        return effects(
            self._base,
            after,
            between,
            operations=operations,
            taken={old.id: newly_deleted(view, old, new) for old, new in between.changed},
            written={old.id: replaced_fields(old, new) for old, new in between.changed},
        )

    def _operations_until(self, head: Snapshot) -> frozenset[str]:
        """The operations of the versions after the base; of versions that have expired the worst is assumed."""
        names: set[str] = set()
        for version in range(self._base.version + 1, head.version):
            found = self._log.find(version)
            names |= _operations(found) if found else {"overwrite"}
        return frozenset(names | _operations(head))


def _operations(snapshot: Snapshot) -> set[str]:
    return set(snapshot.summary.get("operations", ())) or {snapshot.operation}


def _summary(deltas: list[Delta], names: list[str], result: Snapshot) -> dict[str, Any]:
    """The counts of all operations added up."""
    if len(deltas) == 1:
        return result.summary
    counts: dict[str, Any] = {}
    for delta in deltas:
        for key, value in delta.summary.items():
            if key.endswith(_COUNTED):
                counts[key] = counts.get(key, 0) + value
    return {"operations": names, **counts}
