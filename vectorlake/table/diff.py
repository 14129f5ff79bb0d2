"""What differs between two versions: rows, columns, properties and files, as one value that prints as a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vectorlake.metadata.fragment import Fragment
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.schema import Field, describe
from vectorlake.table.changes import Changes
from vectorlake.table.differ import difference
from vectorlake.table.log import TableLog


@dataclass(frozen=True)
class Diff:
    """The difference of two versions of a table."""

    before: int
    after: int
    inserted_rows: int
    updated_rows: int
    deleted_rows: int
    added_columns: tuple[str, ...] = ()
    dropped_columns: tuple[str, ...] = ()
    renamed_columns: tuple[tuple[str, str], ...] = ()
    altered_columns: tuple[tuple[str, str, str], ...] = ()
    """Name, and its type before and after."""
    properties: Mapping[str, str | None] | None = None
    """Those that were set to another value, or with None removed."""
    added_files: int = 0
    removed_files: int = 0
    added_bytes: int = 0

    def __str__(self) -> str:
        counts = (
            f"version {self.before} → {self.after}: {self.inserted_rows:,} rows inserted, {self.updated_rows:,} updated, "
            f"{self.deleted_rows:,} deleted; {self.added_files:,} files of {self.added_bytes:,} bytes added, "
            f"{self.removed_files:,} removed"
        )
        lines = [counts]
        lines += [f"  + column {name}" for name in self.added_columns]
        lines += [f"  - column {name}" for name in self.dropped_columns]
        lines += [f"  column {old} is now {new}" for old, new in self.renamed_columns]
        lines += [f"  column {name}: {old} → {new}" for name, old, new in self.altered_columns]
        lines += [f"  {key} = {value}" for key, value in (self.properties or {}).items()]
        return "\n".join(lines)


def diff(log: TableLog, before: Snapshot, after: Snapshot, changes: Changes) -> Diff:
    """The difference of two versions; `changes` are the net ones between them. Reads only what differs."""
    kinds: Counter[str] = Counter()
    for batch in changes.to_batches():
        kinds.update(batch.column("_change_type").to_pylist())
    between = difference(log, before, after)
    old = _files([*between.removed, *(one for one, _ in between.changed)])
    new = _files([*between.added, *(other for _, other in between.changed)])
    earlier, later = _by_id(before), _by_id(after)
    both = [(earlier[number], later[number]) for number in earlier.keys() & later.keys()]
    keys = sorted(before.properties.keys() | after.properties.keys())
    return Diff(
        before=before.version,
        after=after.version,
        inserted_rows=kinds["insert"],
        updated_rows=kinds["update_postimage"],
        deleted_rows=kinds["delete"],
        added_columns=tuple(later[number].name for number in sorted(later.keys() - earlier.keys())),
        dropped_columns=tuple(earlier[number].name for number in sorted(earlier.keys() - later.keys())),
        renamed_columns=tuple(
            sorted((one.name, other.name) for one, other in both if one.name != other.name)
        ),
        altered_columns=tuple(
            sorted(
                (other.name, describe(one.type, one.logical), describe(other.type, other.logical))
                for one, other in both
                if one.type != other.type
            )
        ),
        properties={
            key: after.properties.get(key)
            for key in keys
            if before.properties.get(key) != after.properties.get(key)
        },
        added_files=len(new.keys() - old.keys()),
        removed_files=len(old.keys() - new.keys()),
        added_bytes=sum(size for path, size in new.items() if path not in old),
    )


def _files(fragments: list[Fragment]) -> dict[str, int]:
    return {file.path: file.size for fragment in fragments for file in fragment.files}


def _by_id(snapshot: Snapshot) -> dict[int, Field]:
    return {field.id: field for field in snapshot.schema.fields}
