"""Which fragments to rewrite and how: small ones together, deleted rows left out, columns in the files of today. Pure.

Works on the columns of manifests, so that 100,000 fragments are planned in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.metadata.fragment import Layout
from vectorlake.metadata.manifest import Manifest
from vectorlake.plan.layout import Unsupported, column_groups, small_properties
from vectorlake.schema import Schema

FULL: Final = 0.75
"""A fragment of less than this share of the target is small."""
OVERFULL: Final = 1.8
"""A fragment of more than this many times the target is split."""
DELETED_SHARE: Final = 0.1


class Work(StrEnum):
    """What is done with a group of fragments."""

    MOVE = "move"
    """Their live rows go to one new fragment, in order."""
    SPLIT = "split"
    """Its live rows go to several new fragments, in order."""
    SORT = "sort"
    """Their live rows go to new fragments, ordered by columns."""
    REGROUP = "regroup"
    """The fragment stays, with its columns in other files."""


class Reason(StrEnum):
    """Why a fragment is rewritten."""

    SMALL = "small fragments"
    LARGE = "large fragments"
    DELETES = "deleted rows"
    FILES = "columns in other files than the table's properties say"
    ORDER = "order of rows"


class Foreign(StrEnum):
    """What becomes of rows that lie in files of others."""

    LEAVE = "leave"
    """They stay where they are."""
    COPY = "copy"
    """They are copied into the table's own files; the files of others are not touched."""


@dataclass(frozen=True)
class Ordering:
    """A column to order rows by; nulls come last either way."""

    column: str
    descending: bool = False


@dataclass(frozen=True)
class Target:
    """What fragments are to be like."""

    rows: int
    """Live rows of a fragment."""
    nbytes: int
    """Bytes of its files."""
    deleted_share: float = DELETED_SHARE
    """Deleted rows are left out where they are more than this share of a fragment."""
    foreign: Foreign = Foreign.LEAVE
    order: tuple[Ordering, ...] = ()
    """With any, all fragments are rewritten, their rows in this order."""


@dataclass(frozen=True)
class Facts:
    """What is known of some fragments, as columns: arrays of one length, by fragment id."""

    ids: np.ndarray
    rows: np.ndarray
    """Physical rows (int64)."""
    live: np.ndarray
    nbytes: np.ndarray
    """Bytes of the files; of a foreign file all of it counts."""
    foreign: np.ndarray
    """Whether any file belongs to others (bool)."""
    files: np.ndarray
    """How many files (int64)."""
    fits: np.ndarray
    """Whether columns lie in files as they would be written today (bool)."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def live_bytes(self) -> np.ndarray:
        """About the bytes that live rows take."""
        return np.asarray(self.nbytes * (self.live / np.maximum(self.rows, 1)))

    def select(self, chosen: np.ndarray) -> Facts:
        """Those at some indices, or where a mask is true."""
        return Facts(
            *(
                array[chosen]
                for array in (
                    self.ids,
                    self.rows,
                    self.live,
                    self.nbytes,
                    self.foreign,
                    self.files,
                    self.fits,
                )
            )
        )


@dataclass(frozen=True)
class Group:
    """Fragments that are rewritten together, or not at all."""

    work: Work
    fragments: np.ndarray
    """Their ids (int64)."""
    reasons: tuple[Reason, ...]
    rows: int
    """Live rows."""
    deleted: int
    """Deleted rows, which are left out (or, in a fragment that stays, stay deleted)."""
    bytes_read: int
    bytes_written: int
    """Estimated."""
    parts: int = 1
    """New fragments."""

    @property
    def fragment_rows(self) -> int:
        """Rows of each new fragment but the last."""
        return max(1, ceil(self.rows / max(self.parts, 1)))


@dataclass(frozen=True)
class LeftAlone:
    """Fragments that would be rewritten but for a reason."""

    why: str
    fragments: int
    rows: int


@dataclass(frozen=True)
class CompactionPlan:
    """What a compaction is going to do; prints as a summary."""

    version: int
    """The version of the table that it was made for."""
    groups: tuple[Group, ...]
    fragments: int
    """Fragments of the table."""
    left_alone: tuple[LeftAlone, ...] = ()
    order: tuple[Ordering, ...] = ()

    @property
    def rows(self) -> int:
        """Live rows that are rewritten."""
        return sum(group.rows for group in self.groups)

    @property
    def bytes_read(self) -> int:
        return sum(group.bytes_read for group in self.groups)

    @property
    def bytes_written(self) -> int:
        """Estimated from the shares of live rows."""
        return sum(group.bytes_written for group in self.groups)

    @property
    def fragments_before(self) -> int:
        """Fragments that are rewritten."""
        return sum(len(group.fragments) for group in self.groups)

    @property
    def fragments_after(self) -> int:
        """Fragments that they become."""
        return sum(group.parts for group in self.groups)

    @property
    def deleted_rows(self) -> int:
        """Deleted rows that are left out."""
        return sum(group.deleted for group in self.groups if group.work is not Work.REGROUP)

    def __bool__(self) -> bool:
        return bool(self.groups)

    def __str__(self) -> str:
        if not self.groups:
            lines = [f"nothing to compact in version {self.version} ({self.fragments:,} fragments)"]
        else:
            what = (
                f"{self.fragments_before:,} of {self.fragments:,} fragments of version {self.version} become "
                f"{self.fragments_after:,}: {self.rows:,} rows, {size(self.bytes_read)} to read, about "
                f"{size(self.bytes_written)} to write"
            )
            lines = [what]
            if self.deleted_rows:
                lines[0] += f"; {self.deleted_rows:,} deleted rows are left out"
            for (work, reasons), groups in _by_kind(self.groups).items():
                before, after = sum(len(g.fragments) for g in groups), sum(g.parts for g in groups)
                what = " and ".join(reasons)
                if work is Work.SORT:
                    what = "ordered by " + ", ".join(
                        one.column + (" descending" if one.descending else "") for one in self.order
                    )
                rows = sum(g.rows for g in groups)
                lines.append(f"  {work}: {before:,} → {after:,} fragments, {rows:,} rows ({what})")
        lines += [
            f"  left alone: {one.fragments:,} fragments, {one.rows:,} rows: {one.why}"
            for one in self.left_alone
        ]
        return "\n".join(lines)


def _by_kind(groups: Sequence[Group]) -> dict[tuple[Work, tuple[Reason, ...]], list[Group]]:
    found: dict[tuple[Work, tuple[Reason, ...]], list[Group]] = {}
    for group in groups:
        found.setdefault((group.work, group.reasons), []).append(group)
    return found


def size(nbytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


# --- what is there -------------------------------------------------------------------------------------------------


def facts_of(
    manifest: Manifest, schema: Schema, properties: Mapping[str, str], unsupported: Unsupported
) -> Facts:
    """The facts of a manifest's fragments, without making values of them."""
    table = manifest.table
    files = _plain(table["files"])
    offsets = files.offsets.to_numpy() - files.offsets[0].as_py() if len(files) else np.zeros(1, np.int64)
    flat = files.flatten()
    starts = offsets[:-1]
    sizes = pc.struct_field(flat, "size").to_numpy(zero_copy_only=False)
    foreign = pc.match_substring(pc.struct_field(flat, "path"), "://").to_numpy(zero_copy_only=False)
    deletes = _plain(table["deletes"])
    deleted = pc.fill_null(pc.struct_field(deletes, "cardinality"), 0).to_numpy(zero_copy_only=False)
    # A null struct's child may be anything.
    deleted = np.where(deletes.is_valid().to_numpy(zero_copy_only=False), deleted, 0)
    rows = manifest.row_counts
    counts = np.diff(offsets)
    return Facts(
        ids=manifest.fragment_ids,
        rows=rows,
        live=rows - deleted,
        nbytes=_summed(sizes, starts, counts),
        foreign=_summed(foreign.astype(np.int64), starts, counts) > 0,
        files=counts.astype(np.int64),
        fits=_fitting(manifest.layouts, files, flat, schema, properties, unsupported),
    )


def together(parts: Sequence[Facts]) -> Facts:
    """The facts of several manifests as one, by fragment id."""
    columns = zip(
        *((p.ids, p.rows, p.live, p.nbytes, p.foreign, p.files, p.fits) for p in (_NONE, *parts)), strict=True
    )
    joined = Facts(*(np.concatenate(column) for column in columns))
    return joined.select(np.argsort(joined.ids, kind="stable"))


_NONE: Final = Facts(*(np.empty(0, kind) for kind in (np.int64,) * 4 + (bool, np.int64, bool)))


def _plain(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _summed(values: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The sum of each run of values."""
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(total[starts + counts] - total[starts])


def _fitting(
    layouts: Sequence[Layout],
    files: pa.Array,
    flat: pa.Array,
    schema: Schema,
    properties: Mapping[str, str],
    unsupported: Unsupported,
) -> np.ndarray:
    """Whether each fragment's columns lie as they would be written today; asked once a combination of layouts."""
    if not len(files):
        return np.empty(0, bool)
    marks = pc.binary_join_element_wise(
        pc.struct_field(flat, "layout").cast(pa.string()), pc.struct_field(flat, "format"), ":"
    )
    offsets = files.offsets.to_numpy() - files.offsets[0].as_py()
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), marks)
    kinds = pc.binary_join(lists, "|").dictionary_encode()
    answers: list[bool] = []
    for kind in kinds.dictionary.to_pylist():
        held = [mark.split(":", 1) for mark in kind.split("|") if mark]
        layouts_held = [(layouts[int(index)], name) for index, name in held]
        answers.append(
            any(
                fits(layouts_held, schema, wanted, unsupported)
                for wanted in (properties, small_properties(properties))
            )
        )
    return np.asarray(np.array(answers, bool)[kinds.indices.to_numpy(zero_copy_only=False)])


def fits(
    held: Sequence[tuple[Layout, str]],
    schema: Schema,
    properties: Mapping[str, str],
    unsupported: Unsupported,
) -> bool:
    """Whether columns that lie in some files (layout and format of each) lie there as they would be written today.

    Columns that were dropped, and row ids and versions, may lie anywhere.
    """
    known = {field.id for field in schema.fields}
    actual = [(name, frozenset(field.id for field in layout.fields) & known) for layout, name in held]
    actual = [(name, ids) for name, ids in actual if ids]
    present = frozenset[int]().union(*(ids for _, ids in actual))
    if len(present) < sum(len(ids) for _, ids in actual):
        return False
    wanted = column_groups([f for f in schema.fields if f.id in present], properties, unsupported)
    return {(group.format, frozenset(field.id for field in group.fields)) for group in wanted} == set(actual)


# --- what to do ----------------------------------------------------------------------------------------------------


def plan_compaction(version: int, facts: Facts, target: Target) -> CompactionPlan:
    """Which of the fragments to rewrite, in which groups.

    Small fragments are packed with their next ones in order of ids, first fit into the one open bin, as long as they
    stay within the target; so a compacted table gives an empty plan.
    """
    left: tuple[LeftAlone, ...] = ()
    chosen = facts
    if target.foreign is Foreign.LEAVE and facts.foreign.any():
        there = facts.select(facts.foreign)
        left = (LeftAlone("they lie in files that belong to others", len(there), int(there.live.sum())),)
        chosen = facts.select(~facts.foreign)
    groups = _sorting(chosen, target) if target.order else _groups(chosen, target)
    return CompactionPlan(version, tuple(groups), len(facts), left, target.order)


def _sorting(facts: Facts, target: Target) -> list[Group]:
    if not len(facts):
        return []
    group = _group(Work.SORT, facts, np.arange(len(facts)), (Reason.ORDER,))
    return [_in_parts(group, target)]


def _groups(facts: Facts, target: Target) -> list[Group]:
    live, nbytes = facts.live, facts.live_bytes
    copied = facts.foreign
    small = (live < FULL * target.rows) & (nbytes < FULL * target.nbytes)
    large = (live > OVERFULL * target.rows) | ((nbytes > OVERFULL * target.nbytes) & (live > 1))
    deleted = facts.rows - live > target.deleted_share * facts.rows
    whole = facts.rows == live
    regrouped = ~facts.fits & whole & ~small & ~large & ~copied
    needed = large | deleted | copied | (~facts.fits & ~regrouped)
    groups = [
        _in_parts(_group(Work.SPLIT, facts, np.array([at]), (Reason.LARGE,)), target)
        for at in np.flatnonzero(large).tolist()
    ]
    groups += [
        _group(Work.REGROUP, facts, np.array([at]), (Reason.FILES,))
        for at in np.flatnonzero(regrouped).tolist()
    ]
    packed = np.flatnonzero((small | needed) & ~large & ~regrouped)
    for start, stop in _bins(live[packed], nbytes[packed], target):
        members = packed[start:stop]
        if len(members) == 1 and not needed[members[0]]:
            continue
        reasons = []
        if len(members) > 1 and small[members].any():
            reasons.append(Reason.SMALL)
        if deleted[members].any():
            reasons.append(Reason.DELETES)
        if (~facts.fits[members]).any() or copied[members].any():
            reasons.append(Reason.FILES)
        kept = (
            len(members) == 1 and reasons == [Reason.FILES] and whole[members[0]] and not copied[members[0]]
        )
        groups.append(_group(Work.REGROUP if kept else Work.MOVE, facts, members, tuple(reasons)))
    return sorted(groups, key=lambda group: int(group.fragments[0]))


def _bins(live: np.ndarray, nbytes: np.ndarray, target: Target) -> list[tuple[int, int]]:
    """Runs `[start, stop)` of fragments whose sums stay within the target (or that are one fragment)."""
    found: list[tuple[int, int]] = []
    start, rows, held = 0, 0, 0.0
    for at, (more_rows, more_bytes) in enumerate(zip(live.tolist(), nbytes.tolist(), strict=True)):
        if at > start and (rows + more_rows > target.rows or held + more_bytes > target.nbytes):
            found.append((start, at))
            start, rows, held = at, 0, 0.0
        rows += more_rows
        held += more_bytes
    return [*found, (start, len(live))] if len(live) else found


def _group(work: Work, facts: Facts, members: np.ndarray, reasons: tuple[Reason, ...]) -> Group:
    rows, live = int(facts.rows[members].sum()), int(facts.live[members].sum())
    return Group(
        work,
        facts.ids[members],
        reasons,
        rows=live,
        deleted=rows - live,
        bytes_read=int(facts.nbytes[members].sum()),
        bytes_written=int(facts.live_bytes[members].sum()),
        parts=1 if live else 0,
    )


def _in_parts(group: Group, target: Target) -> Group:
    parts = max(ceil(group.rows / target.rows), ceil(group.bytes_written / target.nbytes))
    parts = min(parts, group.rows)
    return Group(
        group.work,
        group.fragments,
        group.reasons,
        rows=group.rows,
        deleted=group.deleted,
        bytes_read=group.bytes_read,
        bytes_written=group.bytes_written,
        parts=parts,
    )
