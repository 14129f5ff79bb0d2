"""What the parts of a table's face take for given: the handle that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vectorlake.metadata.snapshot import Snapshot
    from vectorlake.plan.conflict import Effects
    from vectorlake.table.commit import Build
    from vectorlake.table.context import Context
    from vectorlake.table.view import View


class Handle:
    """One table at a snapshot; `Table` fills this in."""

    if TYPE_CHECKING:
        _context: Context
        _view: View

        @property
        def uri(self) -> str: ...

        @property
        def version(self) -> int: ...

        @property
        def snapshot(self) -> Snapshot: ...

        @property
        def view(self) -> View: ...

        def _commit(self, build: Build) -> Snapshot: ...

        def _commit_metadata(self, mine: Effects, build: Build) -> Snapshot: ...

        def _check_writable(self) -> None: ...
