"""The folder that the demo works in: made afresh for each run, and never at the cost of anyone else's files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vectorlake.errors import AlreadyExistsError, InvalidInputError, StorageError

DEFAULT: Final = Path("demo-lake")
_MARKER: Final = ".vectorlake-demo"
_NOTICE: Final = (
    "Made by `vectorlake demo`, which removes `iceberg` and `lake` beside this file when it runs again.\n"
)


@dataclass(frozen=True)
class DemoFolder:
    """Where the demo's parts lie."""

    root: Path

    @property
    def iceberg(self) -> Path:
        """The source: a SQLite catalog and its warehouse."""
        return self.root / "iceberg"

    @property
    def lake(self) -> Path:
        """The vector lake."""
        return self.root / "lake"

    @property
    def query(self) -> Path:
        """The vector of one query, to try the command line with."""
        return self.root / "query.npy"


def prepare(root: Path) -> DemoFolder:
    """A folder without the remains of an earlier run.

    Raises:
        AlreadyExistsError: there is something that no demo made.
        InvalidInputError: it is a file.
        StorageError: it can't be made.
    """
    folder = DemoFolder(root)
    try:
        if root.is_dir() and any(root.iterdir()):
            if not (root / _MARKER).is_file():
                raise AlreadyExistsError(
                    f"{root} holds files that no demo made: name another folder with --folder, or remove it yourself"
                )
            remove(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / _MARKER).write_text(_NOTICE, encoding="utf-8")
    except (FileExistsError, NotADirectoryError) as e:
        raise InvalidInputError(f"{root} is no folder: name another with --folder") from e
    except OSError as e:
        raise StorageError(f"the demo's folder {root} can't be made: {e}") from e
    return folder


def remove(folder: DemoFolder) -> None:
    """Remove what the demo made, and the folder itself if that was all."""
    if not (folder.root / _MARKER).is_file():
        return
    for part in (folder.iceberg, folder.lake):
        shutil.rmtree(part, ignore_errors=True)
    folder.query.unlink(missing_ok=True)
    (folder.root / _MARKER).unlink()
    if not any(folder.root.iterdir()):
        folder.root.rmdir()
