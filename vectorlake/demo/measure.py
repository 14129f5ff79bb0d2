"""What the demo measures of files and tables, and how it writes numbers and names."""

from __future__ import annotations

from pathlib import Path

import vectorlake as vl


def own_files(table: vl.Table) -> dict[str, int]:
    """The table's own data files, of all versions, with their sizes."""
    return {info.path: info.size for info in table.store.list("data")}


def bytes_in(table: vl.Table, folder: str) -> int:
    """Bytes of the table in one folder of its own."""
    return sum(info.size for info in table.store.list(folder))


def files_under(root: Path) -> list[tuple[str, int, int]]:
    """Every file under a folder with its size and time of change."""
    found = ((path, path.stat()) for path in sorted(root.rglob("*")) if path.is_file())
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]


def first_words(text: str) -> str:
    """A text's first paragraph, on one line."""
    return " ".join(text.strip().split("\n\n")[0].split())


def both_ends(name: str, most: int = 32) -> str:
    """A dotted name whose middle is left out where it is long: both ends tell the most."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[-(most - most // 3 - 1) :]}"


def milliseconds(seconds: float) -> str:
    """A time, for people."""
    return f"{seconds * 1000:,.0f} ms"


def size_of(count: int) -> str:
    """A number of bytes, for people."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
