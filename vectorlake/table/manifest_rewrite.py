"""Rewrite a table's manifests so that planning stays fast: few of them, and each with a narrow range of some column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vectorlake.errors import InvalidInputError
from vectorlake.metadata.manifest import Manifest, concat
from vectorlake.metadata.snapshot import ManifestRef, Snapshot
from vectorlake.plan.commit import MANIFEST_FRAGMENTS, Delta
from vectorlake.schema import Field
from vectorlake.table.log import TableLog


@dataclass(frozen=True)
class ManifestPlan:
    """What a rewriting of manifests would do; prints as a line."""

    version: int
    manifests_before: int
    manifests_after: int
    fragments: int
    """Fragments whose entries are written anew."""
    nbytes: int
    """Bytes of the manifests that are read, about as many as are written."""

    def __str__(self) -> str:
        if not self.fragments:
            return f"nothing to rewrite in version {self.version} ({self.manifests_before:,} manifests)"
        return (
            f"{self.manifests_before:,} manifests of version {self.version} become {self.manifests_after:,}: "
            f"{self.fragments:,} fragments, {self.nbytes:,} bytes to rewrite"
        )


class ManifestRewrite:
    """The rewriting of manifests as a change to whatever head there is; the table's contents stay as they are."""

    def __init__(self, log: TableLog, by: str | None, *, most: int = MANIFEST_FRAGMENTS) -> None:
        self._log = log
        self._by = by
        self._most = most

    def plan(self, snapshot: Snapshot) -> ManifestPlan:
        """What would be done to a snapshot.

        Raises:
            InvalidInputError: no fragment knows bounds of the column to order by.
        """
        chosen = self._chosen(snapshot)
        rest = len(snapshot.manifests) - len(chosen)
        count = sum(ref.fragments for ref in chosen)
        return ManifestPlan(
            version=snapshot.version,
            manifests_before=len(snapshot.manifests),
            manifests_after=rest + -(-count // self._most),
            fragments=count,
            nbytes=sum(ref.size for ref in chosen),
        )

    def __call__(self, head: Snapshot) -> Delta | None:
        chosen = self._chosen(head)
        if not chosen:
            return None
        gone = {ref.path for ref in chosen}
        whole = concat([self._log.manifest(ref) for ref in chosen])
        parts = self._parts(whole, head)
        kept = [ref for ref in head.manifests if ref.path not in gone]
        written = [self._log.put_manifest(part, head.schema) for part in parts]
        summary = {"manifests_before": len(head.manifests), "manifests_after": len(kept) + len(written)}
        return Delta("rewrite-manifests", manifests=(*kept, *written), summary=summary)

    def _chosen(self, snapshot: Snapshot) -> Sequence[ManifestRef]:
        """With an order all manifests (unless they have it already), else the small ones, if there are several."""
        if self._by is not None:
            field = self._field(snapshot)
            return [] if self._ordered(snapshot, field) else list(snapshot.manifests)
        small = [ref for ref in snapshot.manifests if 2 * ref.fragments <= self._most]
        return small if len(small) > 1 else []

    def _ordered(self, snapshot: Snapshot, field: Field) -> bool:
        """Whether the manifests are full but for the last, and their ranges of the column lie apart."""
        refs = snapshot.manifests
        known = [ref.bounds.get(str(field.id)) for ref in refs]
        if len(refs) > 1 and any(bounds is None for bounds in known):
            return False
        ranges = sorted((bounds[0], bounds[-1]) for bounds in known if bounds is not None)
        apart = all(one[1] <= other[0] for one, other in pairwise(ranges))
        return apart and len(refs) <= -(-snapshot.num_fragments // self._most)

    def _field(self, snapshot: Snapshot) -> Field:
        assert self._by is not None
        return snapshot.schema.field(self._by)

    def _parts(self, whole: Manifest, head: Snapshot) -> list[Manifest]:
        count = len(whole)
        order = np.arange(count)
        if self._by is not None:
            low = whole.bound("min", self._field(head).id)
            if low is None:
                raise InvalidInputError(
                    f"no fragment knows the least {self._by!r} that it holds, so manifests can't be ordered by it"
                )
            order = np.asarray(pc.array_sort_indices(low.combine_chunks(), null_placement="at_end"))
        return [
            Manifest(
                whole.table.take(pa.array(np.sort(order[start : start + self._most]))),
                whole.layouts,
                whole.features,
            )
            for start in range(0, count, self._most)
        ]
