"""Compare two versions of a table, reading only the manifests that one of them has and the other has not."""

from __future__ import annotations

from vectorlake.metadata.snapshot import Snapshot
from vectorlake.plan.diff import Difference, diff_manifests
from vectorlake.table.log import TableLog


def difference(log: TableLog, before: Snapshot, after: Snapshot) -> Difference:
    """The fragments in which two versions differ. Costs what the differing manifests hold, not what the table does."""
    old = {ref.path for ref in before.manifests}
    new = {ref.path for ref in after.manifests}
    return diff_manifests(
        [log.manifest(ref) for ref in before.manifests if ref.path not in new],
        [log.manifest(ref) for ref in after.manifests if ref.path not in old],
    )
