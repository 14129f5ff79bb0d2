"""A compaction as users ask for it: check the wishes, plan, and rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.ids import NewId
from vectorlake.plan.compaction import CompactionPlan, Foreign, Ordering, Target
from vectorlake.plan.layout import DEFAULTS, FRAGMENT_BYTES, FRAGMENT_ROWS
from vectorlake.table.compaction import MEMORY, Compaction, Progress, make_plan
from vectorlake.table.view import View

SortBy: TypeAlias = str | Sequence[str | tuple[str, str]] | None
"""A column to sort by, or several, each a name or `(name, "desc")`; None to leave the order as it is."""


def planned(
    view: View,
    *,
    target_rows: int | None,
    sort_by: SortBy,
    deleted_share: float,
    foreign: str,
    memory_limit: int | None = None,
) -> CompactionPlan:
    """What a compaction would do; arguments and errors as for `Table.compact`."""
    properties = {**DEFAULTS, **view.snapshot.properties}
    for name, value in (("target_rows", target_rows), ("memory_limit", memory_limit)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InvalidInputError(f"{name} must be a positive integer, not {value!r}")
    if not 0 <= deleted_share <= 1:
        raise InvalidInputError(f"deleted_share must be between 0 and 1, not {deleted_share!r}")
    try:
        copying = Foreign(foreign)
    except ValueError as e:
        raise InvalidInputError(f"foreign must be 'leave' or 'copy', not {foreign!r}") from e
    if copying is Foreign.COPY and any(key.startswith("iceberg.") for key in properties):
        raise UnsupportedError(
            "the table is synced with a source, which needs its files to stay: create a table of its own from it instead"
        )
    order = _orderings(sort_by)
    view.select([ordering.column for ordering in order])
    target = Target(
        rows=target_rows or int(properties[FRAGMENT_ROWS]),
        nbytes=int(properties[FRAGMENT_BYTES]),
        deleted_share=deleted_share,
        foreign=copying,
        order=order,
    )
    return make_plan(view, target)


def compact(
    view: View,
    *,
    target_rows: int | None,
    sort_by: SortBy,
    deleted_share: float,
    foreign: str,
    memory_limit: int | None,
    dry_run: bool,
    new_id: NewId,
    progress: Progress | None,
) -> tuple[CompactionPlan, Compaction | None]:
    """The plan, and unless it is empty or a dry run, the rewritten fragments, ready to commit (see `Table.compact`)."""
    plan = planned(
        view,
        target_rows=target_rows,
        sort_by=sort_by,
        deleted_share=deleted_share,
        foreign=foreign,
        memory_limit=memory_limit,
    )
    if dry_run or not plan:
        return plan, None
    return plan, Compaction(view, plan, new_id=new_id, memory=memory_limit or MEMORY, progress=progress)


def _orderings(sort_by: SortBy) -> tuple[Ordering, ...]:
    if sort_by is None:
        return ()
    found: list[Ordering] = []
    for one in [sort_by] if isinstance(sort_by, str) else sort_by:
        column, direction = (one, "asc") if isinstance(one, str) else one
        if direction not in ("asc", "desc"):
            raise InvalidInputError(f"the order of {column!r} must be 'asc' or 'desc', not {direction!r}")
        found.append(Ordering(column, direction == "desc"))
    return tuple(found)
