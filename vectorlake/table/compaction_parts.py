"""Compact a table in parts, a group of fragments each, in other processes; one of them commits all parts as one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.commit import FragmentUpdate
from vectorlake.plan.compaction import DELETED_SHARE, CompactionPlan, Foreign
from vectorlake.table.compact import planned
from vectorlake.table.compaction import MEMORY, Compaction, Rewritten
from vectorlake.table.index_upkeep import keeping_covered
from vectorlake.table.ref import TableRef
from vectorlake.table.staging import decode_fragments, encode_fragments
from vectorlake.table.view import View, find_fragments
from vectorlake.table.writer import paths_of

if TYPE_CHECKING:
    from vectorlake.table.table import Table


class _Part(msgspec.Struct, frozen=True):
    """A group that was rewritten, as bytes."""

    group: int
    added: bytes
    replaced: bytes | None
    """Instead of new fragments: the new files of the one that stays."""
    order: bytes | None


@dataclass(frozen=True)
class CompactionWork:
    """The compaction of one version of a table. Picklable; arguments are those of `Table.compact`.

    `plan()` says what there is to do, `rewrite` does one of its groups anywhere, `commit` makes the parts one version.
    """

    table: TableRef
    target_rows: int | None = None
    sort_by: tuple[tuple[str, str], ...] = ()
    deleted_share: float = DELETED_SHARE
    foreign: str = Foreign.LEAVE

    def plan(self) -> CompactionPlan:
        """What is to be rewritten, decided from metadata: the same wherever it is asked.

        Raises:
            InvalidInputError, NotFoundError, UnsupportedError: as for `Table.compact`.
        """
        return planned(
            self.table.open().view,
            target_rows=self.target_rows,
            sort_by=self.sort_by or None,
            deleted_share=self.deleted_share,
            foreign=self.foreign,
        )

    def rewrite(self, group: int, *, memory: int = MEMORY) -> tuple[bytes, tuple[str, ...]]:
        """Rewrite one of the plan's groups: what `commit` needs to know of it, and the files written.

        Raises:
            CorruptDataError: a file is damaged.
            UnsupportedError: columns to sort by that don't fit the memory.
        """
        view, plan = self.table.open().view, self.plan()
        doing = Compaction(view, plan, new_id=view.files.context.new_id, memory=memory, done=())
        done = doing.rewrite(plan.groups[group])
        added = [msgspec.structs.replace(one, id=number) for number, one in enumerate(done.added)]
        update = done.update
        stays = None
        if update is not None:
            stays = Fragment(
                row_count=done.inputs[0].row_count,
                files=update.files,
                id=update.fragment_id,
                bounds=update.bounds,
                balls=update.balls,
            )
        part = _Part(
            group,
            encode_fragments(added),
            None if stays is None else encode_fragments([stays]),
            None if done.order is None else done.order.astype("<i8").tobytes(),
        )
        written = [*added, *([] if stays is None else [stays])]
        return msgspec.msgpack.encode(part), tuple(paths_of(written))

    def commit(self, table: Table, parts: Sequence[bytes]) -> Snapshot:
        """Commit the parts as one version; groups of which others have rewritten a fragment meanwhile are left out.

        Args:
            table: a handle that can be written to; it moves to the new version.

        Returns:
            The snapshot committed; the newest one if nothing is left of the work.
        """
        view, plan = self.table.open().view, self.plan()
        decoded = [msgspec.msgpack.decode(part, type=_Part) for part in parts]
        done = [_rewritten(view, plan, part) for part in decoded]
        new_id = view.files.context.new_id
        compaction = Compaction(view, plan, new_id=new_id, done=done)
        log, files = table.view.log, table.view.files
        return table.commit(keeping_covered(compaction, lambda head: View(head, log, files)))


def _rewritten(view: View, plan: CompactionPlan, part: _Part) -> Rewritten:
    group = plan.groups[part.group]
    found = find_fragments(view.log, view.snapshot, {int(number) for number in group.fragments})
    inputs = tuple(found[int(number)] for number in group.fragments)
    order = None if part.order is None else np.frombuffer(part.order, "<i8")
    if part.replaced is not None:
        (stays,) = decode_fragments(part.replaced)
        return Rewritten(
            group,
            inputs,
            update=FragmentUpdate(stays.id, files=stays.files, bounds=stays.bounds, balls=stays.balls),
        )
    return Rewritten(group, inputs, tuple(decode_fragments(part.added)), order=order)
