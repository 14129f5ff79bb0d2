"""Where a root or a file lies, read from a URI or a local path.

URIs are taken verbatim, never percent-decoded, as Iceberg and Delta logs write them: `s3://bucket/a b` is the
key `a b`. Only a local URI that names nothing as it stands, while its decoded form names something, is
decoded.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import unquote

from vectorlake.errors import InvalidInputError, UnsupportedError


class Kind(Enum):
    """Which client reaches a location."""

    LOCAL = "local"
    MEMORY = "memory"
    S3 = "S3"
    GCS = "Google Cloud Storage"
    AZURE = "Azure"


_KINDS = {
    "file": Kind.LOCAL,
    "memory": Kind.MEMORY,
    "s3": Kind.S3,
    "s3a": Kind.S3,
    "s3n": Kind.S3,
    "gs": Kind.GCS,
    "gcs": Kind.GCS,
    "az": Kind.AZURE,
    "azure": Kind.AZURE,
    "adl": Kind.AZURE,
    "abfs": Kind.AZURE,
    "abfss": Kind.AZURE,
    "wasb": Kind.AZURE,
    "wasbs": Kind.AZURE,
}

# One letter before the colon is a Windows drive, not a scheme.
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):(//)?")


@dataclass(frozen=True, slots=True)
class Location:
    """`path` under `root`, where one client serves the whole root.

    `root` is `file://` (so that `root + "/" + path` is the file's URI), `memory://<name>`, `s3://<bucket>`,
    `gs://<bucket>` or `az://<container>`. `path` is `/`-separated without slashes at its ends and may be
    empty. `account` is the Azure account that an `abfss://container@account.…` URI names.
    """

    kind: Kind
    root: str
    name: str
    path: str
    account: str | None = None

    @property
    def uri(self) -> str:
        return f"{self.root}/{self.path}" if self.path else self.root


def parse_location(uri_or_path: str | os.PathLike[str]) -> Location:
    """Location of a URI (`file:`, `memory:`, `s3:`, `gs:`, `az:`, `abfss:` and their aliases) or a local
    path.

    A relative local path is taken from the current folder, `~` is the home folder. Raises `UnsupportedError`
    on a scheme that no store serves, `InvalidInputError` on an empty path or a missing bucket.
    """
    text = os.fspath(uri_or_path)
    if not text:
        raise InvalidInputError(
            "an empty path names no place: pass a folder or a URI such as s3://bucket/lake"
        )
    match = None if isinstance(uri_or_path, Path) else _SCHEME.match(text)
    if match is None:
        return _local(os.path.abspath(os.path.expanduser(text)))
    scheme, rest = match[1].lower(), text[match.end() :]
    kind = _KINDS.get(scheme)
    if kind is None:
        if match[2] is None and os.path.exists(text):
            return _local(os.path.abspath(text))
        raise UnsupportedError(
            f"no store serves {scheme}:// ({text}): use a local path or one of {', '.join(sorted(_KINDS))}"
        )
    if kind is Kind.LOCAL:
        return _local(_decoded_if_needed(rest.removeprefix("localhost") if match[2] else rest, text))
    return _remote(kind, rest, text)


def _remote(kind: Kind, rest: str, text: str) -> Location:
    name, _, path = rest.partition("/")
    account = None
    if kind is Kind.AZURE and "@" in name:
        name, _, host = name.partition("@")
        account = host.partition(".")[0] or None
    if not name and kind is not Kind.MEMORY:
        raise InvalidInputError(
            f"{text} names no bucket: write s3://bucket/folder, gs://… or az://container/folder"
        )
    scheme = {Kind.MEMORY: "memory", Kind.S3: "s3", Kind.GCS: "gs", Kind.AZURE: "az"}[kind]
    path = path.strip("/")
    if path:
        check_path(path)
    return Location(kind, f"{scheme}://{name}", name, path, account)


def _local(absolute: str) -> Location:
    normal = os.path.normpath(absolute)
    return Location(Kind.LOCAL, "file://", "", normal.replace(os.sep, "/").strip("/"))


def _decoded_if_needed(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise InvalidInputError(
            f"{text} is not an absolute file URI: write file:///folder, or the plain path"
        )
    if "%" in path and not os.path.exists(path) and os.path.exists(unquote(path)):
        return unquote(path)
    return path


_ODD = re.compile(r"(^|/)(\.{0,2})(/|$)|\\|\x00")


def check_path(path: str) -> str:
    """`path` itself if it is relative and stays below its root; raises `InvalidInputError` otherwise."""
    if not path or _ODD.search(path):
        raise InvalidInputError(
            f"{path!r} is not a path inside a store: it must be relative, without empty, '.' or '..' parts"
        )
    return path


def join(prefix: str, path: str) -> str:
    """`prefix/path` where either may be empty."""
    return f"{prefix}/{path}" if prefix and path else prefix or path
