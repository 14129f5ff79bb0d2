"""Harvest the docstrings of the standard library and the installed packages, without importing them."""

from __future__ import annotations

import ast
import gc
import inspect
import os
import re
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath, PurePosixPath

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("package", pa.string()),
        pa.field("version", pa.string()),
        pa.field("module", pa.string()),
        pa.field("name", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("signature", pa.string()),
        pa.field("line", pa.int32()),
        pa.field("n_args", pa.int32()),
        pa.field("length", pa.int32()),
        pa.field("deprecated", pa.bool_()),
        pa.field("text", pa.string()),
    ]
)

STDLIB = "python"

_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "testing"}
    | {"_vendor", "_vendored", "vendor", "vendored", "externals", "_bundled", "_distutils"}
)
_SKIPPED_FILES = re.compile(r"(conftest|test_.*|.*_test|.*_pb2(_grpc)?)\.py")
_DEPRECATED = re.compile(
    r"\.\. deprecated|\bdeprecated (since|in|as of)\b|\bis deprecated\b|^deprecated\b", re.I
)
_MARKUP = re.compile(r":[a-z:]+:`[~!]?([^`<]+?)(?:\s*<[^`>]*>)?`|``([^`]*)``")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HAS_DOCSTRING = re.compile(rb'"""|\'\'\'')


@dataclass(frozen=True)
class Source:
    """One package to harvest: distribution name, version, and modules as (dotted name, file), in order."""

    package: str
    version: str
    modules: tuple[tuple[str, Path], ...]


@dataclass(frozen=True)
class Entry:
    """One documented definition. `n_args` is None for modules and classes; `line` counts from 1."""

    module: str
    name: str
    kind: str
    signature: str
    line: int
    n_args: int | None
    deprecated: bool
    text: str


def standard_library() -> Source:
    """The running interpreter's standard library, as the package "python"."""
    root = Path(sysconfig.get_path("stdlib"))
    return Source(STDLIB, ".".join(map(str, sys.version_info[:3])), _modules(_files_under(root)))


def installed_packages(*, path: Sequence[str] | None = None) -> Iterator[Source]:
    """The installed distributions that have Python files, in name order; the first found of one name counts.

    Args:
        path: folders to look in, as `sys.path`; by default `sys.path` itself.
    """
    found: dict[str, metadata.Distribution] = {}
    for dist in metadata.distributions() if path is None else metadata.distributions(path=list(path)):
        # An install that was broken off leaves metadata without a name.
        if name := dist.metadata["Name"]:
            found.setdefault(name.lower(), dist)
    for name, dist in sorted(found.items()):
        files = ((PurePosixPath(file), Path(str(dist.locate_file(file)))) for file in dist.files or ())
        if modules := _modules(files):
            yield Source(name, dist.version, modules)


def harvest(
    *,
    sources: Iterable[Source] | None = None,
    limit: int | None = None,
    batch_rows: int = 2048,
    min_length: int = 30,
) -> Iterator[pa.RecordBatch]:
    """Read docstrings into record batches of `SCHEMA`, distinct in text and in (package, module, name).

    Files that cannot be read or parsed are left out. The order depends only on the sources, and ids count up
    from 0 in it. Files are parsed as the batches are asked for.

    Args:
        sources: packages in order; by default the standard library, then the installed packages.
        limit: the most rows in all.
        batch_rows: rows in each batch but the last.
        min_length: docstrings of fewer characters are left out.
    """
    if sources is None:
        sources = _all_sources()
    seen: set[object] = set()
    rows: list[tuple[object, ...]] = []
    count = 0
    for source in sources:
        for module, path in source.modules:
            for entry in read_module(path, module=module):
                where = (source.package, entry.module, entry.name)
                if len(entry.text) < min_length or entry.text in seen or where in seen:
                    continue
                if limit is not None and count == limit:
                    break
                seen.update((entry.text, where))
                rows.append(_row(count, source, entry))
                count += 1
                if len(rows) == batch_rows:
                    yield _batch(rows)
                    rows = []
            if limit is not None and count == limit:
                break
        if limit is not None and count == limit:
            break
    if rows:
        yield _batch(rows)


def read_module(path: Path, *, module: str) -> Iterator[Entry]:
    """The documented definitions of one Python file, in file order; none if it cannot be read or parsed.

    Definitions inside functions are left out, those inside classes and `if`/`try` blocks are not.
    """
    try:
        source = path.read_bytes()
        # Parsing dominates the harvest, and a third of all files (tables, generated code) document nothing.
        if not _HAS_DOCSTRING.search(source):
            return
        with warnings.catch_warnings(), _collector_paused():
            # Other people's invalid escapes and odd literals are no news to the reader of a harvest.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return
    if text := _docstring(tree):
        yield Entry(module, module, "module", "", 1, None, bool(_DEPRECATED.search(text)), text)
    yield from _definitions(tree.body, module=module, prefix="")


def embedding_text(batch: pa.RecordBatch | pa.Table) -> list[str]:
    """What an embedder should see of each row: the last words of `name`, then `text` without markup."""
    columns = (batch.column(name).to_pylist() for name in ("name", "text"))
    # The whole dotted name would make a package's rows look alike, whatever they do.
    return [
        f"{_words(' '.join(name.split('.')[-2:]))}\n{_plain(text)}"
        for name, text in zip(*columns, strict=True)
    ]


def _all_sources() -> Iterator[Source]:
    yield standard_library()
    yield from installed_packages()


def _files_under(root: Path) -> Iterator[tuple[PurePath, Path]]:
    for folder, folders, files in os.walk(root):
        # Installed packages lie inside the standard library's folder: don't even look there.
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for file in files:
            path = Path(folder, file)
            yield path.relative_to(root), path


def _modules(files: Iterable[tuple[PurePath, Path]]) -> tuple[tuple[str, Path], ...]:
    kept = ((_module_name(relative), path) for relative, path in files if _is_wanted(relative))
    return tuple(sorted(kept))


def _is_wanted(relative: PurePath) -> bool:
    folders, file = relative.parts[:-1], relative.name
    return (
        file.endswith(".py")
        and not _SKIPPED_FILES.fullmatch(file)
        and not _SKIPPED_FOLDERS.intersection(folders)
        # Scripts, data folders and files above the root are no modules.
        and all(folder.isidentifier() for folder in folders)
    )


def _module_name(relative: PurePath) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _definitions(body: Sequence[ast.stmt], *, module: str, prefix: str) -> Iterator[Entry]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                name = prefix + node.name
                if text := _docstring(node):
                    yield _entry(node, module=module, name=name, is_member=bool(prefix), text=text)
                if isinstance(node, ast.ClassDef):
                    yield from _definitions(node.body, module=module, prefix=f"{name}.")
            case ast.If(body=then, orelse=otherwise):
                yield from _definitions([*then, *otherwise], module=module, prefix=prefix)
            case ast.Try(body=then, orelse=otherwise, handlers=handlers):
                handled = [statement for handler in handlers for statement in handler.body]
                yield from _definitions([*then, *otherwise, *handled], module=module, prefix=prefix)
            case _:
                pass


def _entry(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
    *,
    module: str,
    name: str,
    is_member: bool,
    text: str,
) -> Entry:
    if isinstance(node, ast.ClassDef):
        kind, n_args = "class", None
        bases = ", ".join(map(ast.unparse, node.bases))
        signature = f"{node.name}({bases})" if bases else node.name
    else:
        plain = "method" if is_member else "function"
        kind = f"async {plain}" if isinstance(node, ast.AsyncFunctionDef) else plain
        args = node.args
        n_args = len(args.posonlyargs) + len(args.args) + len(args.kwonlyargs)
        n_args += (args.vararg is not None) + (args.kwarg is not None)
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        signature = f"{node.name}({ast.unparse(args)}){returns}"
    decorated = any("deprecated" in ast.unparse(decorator) for decorator in node.decorator_list)
    deprecated = decorated or bool(_DEPRECATED.search(text))
    return Entry(module, f"{module}.{name}", kind, signature, node.lineno, n_args, deprecated, text)


@contextmanager
def _collector_paused() -> Iterator[None]:
    # A syntax tree is a burst of live objects: collecting in its midst costs a quarter more and frees none.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    text = ast.get_docstring(node, clean=False)
    # Lone surrogates are legal in a Python literal, and in no table.
    return inspect.cleandoc(text).encode("utf-8", "replace").decode("utf-8").strip() if text else ""


def _row(row_id: int, source: Source, entry: Entry) -> tuple[object, ...]:
    where = (row_id, source.package, source.version, entry.module, entry.name, entry.kind, entry.signature)
    return (*where, entry.line, entry.n_args, len(entry.text), entry.deprecated, entry.text)


def _batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    arrays = [
        pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    return pa.record_batch(arrays, schema=SCHEMA)


def _words(name: str) -> str:
    return " ".join(word.lower() for word in _WORD.findall(name))


def _plain(text: str) -> str:
    return _MARKUP.sub(lambda match: match[1] or match[2] or "", text)
