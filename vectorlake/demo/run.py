"""The demo's flow: an Iceberg table becomes a searchable vector lake, and stays in step with its source."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import vectorlake as vl
from vectorlake.demo import folder as folders
from vectorlake.demo import sql
from vectorlake.demo.corpus import STDLIB, embedding_text, harvest, installed_packages, standard_library
from vectorlake.demo.embed import Lsa
from vectorlake.demo.folder import DemoFolder
from vectorlake.demo.measure import (
    both_ends,
    bytes_in,
    files_under,
    first_words,
    milliseconds,
    own_files,
    size_of,
)
from vectorlake.demo.source import Growth, Source, build_source, grow_source, split
from vectorlake.demo.story import Story
from vectorlake.errors import InvalidInputError, UnsupportedError, VectorlakeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

TABLE: Final = "docs.docstrings"
COLUMN: Final = "embedding"
TAG: Final = "before-growth"
INDEX: Final = "embedding_ivf"
DEFAULT_LIMIT: Final = 15_000
LEAST_LIMIT: Final = 1000
QUESTIONS: Final = (
    "remove duplicate values from a list",
    "draw random numbers from a normal distribution",
    "parse command line options",
)
LEAVING: Final = "kind = 'class' and deprecated = true"
"""What somebody deletes from the source."""
_TOP: Final = 3
_PAIRS: Final = 6
_SMALL: Final = 5_000
"""A corpus of fewer rows has too few words for the full number of dimensions."""


class DemoMismatchError(VectorlakeError):
    """The demo found two answers that should have been the same: a bug of vectorlake's."""


@dataclass(frozen=True)
class Model:
    """The embedder, fitted, as what `add_column` and a search want."""

    lsa: Lsa

    def column(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Vectors [rows, dimensions] of a batch with `name` and `text`."""
        return self.lsa.encode(embedding_text(batch))

    def questions(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Vectors [texts, dimensions] of questions."""
        return self.lsa.encode(list(texts))


def run_demo(
    root: Path | None = None, *, limit: int | None = None, keep: bool = True, console: Console | None = None
) -> dict[str, Any]:
    """Run every step, told on a console (or not at all), and return what was measured.

    Args:
        root: a folder of its own, by default `demo-lake`; what an earlier run left there is made anew.
        limit: docstrings to harvest at most; by default `DEFAULT_LIMIT`.
        keep: leave the folder there afterwards.
        console: where to tell it.

    Raises:
        InvalidInputError: a limit of too few docstrings.
        AlreadyExistsError: the folder holds files that no demo made.
        UnsupportedError: an extra is missing; names it.
        DemoMismatchError: two answers differ that must not.
    """
    check_extras()
    limit = DEFAULT_LIMIT if limit is None else limit
    if limit < LEAST_LIMIT:
        raise InvalidInputError(
            f"the demo needs at least {LEAST_LIMIT:,} docstrings to learn words from, not {limit}"
        )
    folder = folders.prepare(root or folders.DEFAULT)
    story = Story(console)
    try:
        summary = _run(folder, story, limit)
        if keep:
            _close(folder, story)
        return {**summary, "seconds": story.seconds}
    finally:
        if not keep:
            folders.remove(folder)


def check_extras() -> None:
    """Refuse to start without what a later step needs.

    Raises:
        UnsupportedError: names what is missing and how to install it.
    """
    from importlib.util import find_spec

    needed = {"pyiceberg": "pyiceberg", "duckdb": "duckdb", "sklearn": "scikit-learn"}
    if missing := [package for module, package in needed.items() if find_spec(module) is None]:
        raise UnsupportedError(f"the demo needs {', '.join(missing)}: pip install 'vectorlake[demo]'")


def _run(folder: DemoFolder, story: Story, limit: int) -> dict[str, Any]:
    story.title(
        "vectorlake: from an Iceberg table to a vector lake",
        "On real input that this machine has: the docstrings of its Python and the packages installed in it.",
    )
    source, rest = _build(folder, story, limit)
    table, copied = _import(folder, story, source)
    model = _embed(story, table)
    asked = model.questions(QUESTIONS)
    np.save(folder.query, asked[0])
    _search(story, table, asked)
    indexed = _index(story, table, asked)
    answer = _sql(folder, story, table, asked)
    table.tag(TAG)
    grown, synced = _grow(story, table, source, rest, model)
    _travel(folder, story, table)
    findings, files = _verify(story, table)
    return {
        "folder": str(folder.root),
        "table": table.name,
        "rows_imported": source.rows,
        "source_files": source.data_files,
        **copied,
        **indexed,
        **answer,
        "source_appended": grown.appended,
        "source_deleted": grown.deleted,
        **synced,
        "rows": table.count(),
        "versions": table.version,
        "verified_files": files,
        "findings": findings,
    }


def _build(folder: DemoFolder, story: Story, limit: int) -> tuple[Source, list[pa.RecordBatch]]:
    with story.step(
        "source",
        "A source: an Iceberg table",
        "Written by pyiceberg, as your own jobs would: nothing here is ours.",
    ):
        with story.timed("harvest"), story.progress("reading docstrings") as advance:
            batches = list(_counted(_corpus(limit), advance, limit))
        rows = sum(batch.num_rows for batch in batches)
        packages = {name for batch in batches for name in batch.column("package").unique().to_pylist()}
        story.fact("harvested", f"{rows:,} docstrings from {len(packages)} packages")
        # The last few per cent come later: the source grows.
        first, rest = split(batches, rows - max(rows // 50, 1))
        source = build_source(folder.iceberg, first)
        parquet = sum(size for path, size, _ in files_under(folder.iceberg) if path.endswith(".parquet"))
        story.fact(
            "Iceberg table", f"{source.rows:,} rows, {source.data_files} Parquet files, {size_of(parquet)}"
        )
        story.fact("where", str(folder.iceberg))
    return source, rest


def _corpus(limit: int) -> Iterator[pa.RecordBatch]:
    """The standard library for half of the rows at most, then the installed packages: a join needs both."""
    rows = 0
    for sources, most in (([standard_library()], limit // 2), (installed_packages(), limit)):
        start = rows
        for batch in harvest(sources=sources, limit=most - start):
            rows += batch.num_rows
            ids = pc.add(batch.column("id"), start)
            yield pa.RecordBatch.from_arrays([ids, *batch.columns[1:]], schema=batch.schema)


def _counted(batches: Iterator[pa.RecordBatch], advance: Any, limit: int) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in batches:
        done += batch.num_rows
        advance(done, limit)
        yield batch


def _import(folder: DemoFolder, story: Story, source: Source) -> tuple[vl.Table, dict[str, int]]:
    import vectorlake_iceberg

    with story.step(
        "import", "Import it without copying", "The lake's table points at the source's own files."
    ):
        before = files_under(folder.iceberg)
        lake = vl.connect(folder.lake)
        with story.timed("import_only"):
            table = vectorlake_iceberg.import_table(source.table, lake, TABLE)
        copied = bytes_in(table, "data")
        metadata = bytes_in(table, "metadata")
        untouched = files_under(folder.iceberg) == before
        if table.count() != source.rows or not untouched:
            raise DemoMismatchError(
                f"{table.count()} rows of {source.rows}; source files untouched: {untouched}"
            )
        story.code('table = vectorlake_iceberg.import_table(source, lake, "docs.docstrings")', "python")
        story.fact("rows", f"{table.count():,} in {table.snapshot.num_fragments} fragments")
        story.fact("bytes copied", f"{copied:,}", good=True)
        story.fact("metadata", f"{size_of(metadata)} written in {milliseconds(story.seconds['import_only'])}")
        story.fact("source files", "untouched, every one")
    return table, {"bytes_copied": copied, "metadata_bytes": metadata}


def _embed(story: Story, table: vl.Table) -> Model:
    with story.step(
        "embed",
        "Add an embedding column without rewriting",
        "Latent semantic analysis, fitted on the texts themselves: no download. Any function over batches will do.",
    ):
        dimensions = 512 if table.count() >= _SMALL else 64
        with story.timed("fit"), story.progress("fitting the embedder"):
            texts = embedding_text(table.scan(["name", "text"]).to_arrow())
            model = Model(Lsa(dimensions=dimensions).fit(texts))
        story.code(
            f'table.add_column("{COLUMN}", model.column,\n'
            f'                 type=vl.vector({dimensions}, "f32"), inputs=["name", "text"])',
            "python",
        )
        before = own_files(table)
        with story.timed("add_column"), story.progress("embedding") as advance:
            table.add_column(
                COLUMN,
                model.column,
                type=vl.vector(dimensions, "f32"),
                inputs=["name", "text"],
                progress=advance,
            )
        written = own_files(table).keys() - before.keys()
        size = sum(own_files(table)[path] for path in written)
        story.fact("model", f"fitted in {story.seconds['fit']:.1f} s")
        story.fact(
            "column",
            f"{table.count():,} vectors of {dimensions} × f32 in {story.seconds['add_column']:.1f} s",
        )
        story.fact("bytes written", f"{size_of(size)}: the new column's files and nothing else", good=True)
    return model


def _search(story: Story, table: vl.Table, asked: NDArray[np.float32]) -> None:
    with story.step(
        "search", "Search", "Exact nearest neighbours by cosine distance; one call for all questions."
    ):
        story.code(
            f'table.knn(vectors, "{COLUMN}", k={_TOP}, metric="cosine",\n          columns=["name", "text"])',
            "python",
        )
        with story.timed("knn"):
            found = table.knn(asked, COLUMN, k=_TOP, metric="cosine", columns=["name", "text"])
        for index, question in enumerate(QUESTIONS):
            hits = [row for row in found.to_pylist() if row["query"] == index]
            story.say(f"“{question}”")
            story.table(
                {"distance": "right", "name": "left", "what it says": "wide"},
                [
                    [f"{hit['distance']:.3f}", both_ends(hit["name"]), first_words(hit["text"])]
                    for hit in hits
                ],
            )
        with story.timed("knn_again"):
            table.knn(asked, COLUMN, k=_TOP, metric="cosine", columns=["name", "text"])
        first, again = (milliseconds(story.seconds[name]) for name in ("knn", "knn_again"))
        story.fact(
            "took", f"{first} (asked again: {again}), {len(QUESTIONS)} questions × {table.count():,} vectors"
        )


def _index(story: Story, table: vl.Table, asked: NDArray[np.float32]) -> dict[str, int]:
    with story.step(
        "index",
        "Index it",
        "An inverted file of one-bit codes nominates, the stored vectors decide: distances are those of the exact search.",
    ):
        story.code(
            f'table.create_index("{COLUMN}", metric="cosine")\n'
            f'table.knn(vectors, "{COLUMN}", k={_TOP}, target_recall=0.99)',
            "python",
        )
        with story.timed("create_index"), story.progress("indexing"):
            table.create_index(COLUMN, metric="cosine", name=INDEX)
        told = table.describe_index(INDEX)
        exact = table.knn(asked, COLUMN, k=_TOP, metric="cosine")
        found = table.knn(asked, COLUMN, k=_TOP, index=INDEX, target_recall=0.99)
        distances = {
            (row["query"], row["row_id"]): row["distance"]
            for row in exact.select(["query", "row_id", "distance"]).to_pylist()
        }
        both = [row for row in found.to_pylist() if (row["query"], row["row_id"]) in distances]
        if any(row["distance"] != distances[row["query"], row["row_id"]] for row in both):
            raise DemoMismatchError("a distance found by the index is not that of the exact search")
        story.fact(
            "index",
            f"{told.covered_rows:,} rows in {story.seconds['create_index']:.1f} s, {size_of(told.bytes)}"
            " (the first use compiles)",
        )
        story.fact("found", f"{len(both)} of the {exact.num_rows} nearest, with equal distances", good=True)
    return {"index_rows": told.covered_rows, "index_found": len(both)}


def _sql(folder: DemoFolder, story: Story, table: vl.Table, asked: NDArray[np.float32]) -> dict[str, Any]:
    title, why = (
        "The same in SQL",
        "DuckDB sees the lake as a catalog; filters and columns reach into the scan.",
    )
    with story.step("sql", title, why), sql.connect(str(folder.lake)) as con:
        counted = sql.count(con)
        story.code(counted.sql, "sql")
        story.rows(counted.columns, counted.rows)
        found = sql.knn(con, asked[0], _TOP)
        story.code(found.sql, "sql")
        story.rows(found.columns, found.rows)
        expected = table.knn(asked[0], COLUMN, k=_TOP, metric="cosine")
        ids, distances = found.column("row_id"), found.column("distance")
        if (ids, distances) != (expected["row_id"].to_pylist(), expected["distance"].to_pylist()):
            raise DemoMismatchError(f"DuckDB found rows {ids}, Python {expected['row_id'].to_pylist()}")
        story.fact("compared", "same answer as from Python: the same rows, the same distances", good=True)
        story.say("")
        story.say("A join by meaning: what in other packages is like a function of the standard library?")
        with story.timed("knn_join"):
            joined = sql.knn_join(con)
        story.code(joined.sql, "sql")
        story.rows(joined.columns, joined.rows[:_PAIRS])
        candidates = table.count(f"package <> '{STDLIB}'")
        took = story.seconds["knn_join"]
        story.fact("joined", f"{len(joined.rows):,} functions × {candidates:,} candidates in {took:.2f} s")
    return {"same_answer": True, "joined_rows": len(joined.rows)}


def _grow(
    story: Story, table: vl.Table, source: Source, rest: list[pa.RecordBatch], model: Model
) -> tuple[Growth, dict[str, int]]:
    import vectorlake_iceberg

    with story.step(
        "sync",
        "The source grows; the lake follows",
        "Somebody appends to the Iceberg table, and deletes from it.",
    ):
        with warnings.catch_warnings():
            # A small corpus may hold no such class: pyiceberg warns, and the story tells.
            warnings.simplefilter("ignore", UserWarning)
            grown = grow_source(source.table, rest, delete=LEAVING)
        story.fact(
            "source", f"{grown.appended:,} rows appended, {grown.deleted:,} deleted (deprecated classes)"
        )
        rows, files = table.count(), own_files(table)
        with story.timed("sync_only"):
            vectorlake_iceberg.sync(table, source.table)
        after_sync = own_files(table)
        carried = sum(after_sync[path] for path in after_sync.keys() - files.keys())
        missing = table.count(f"{COLUMN} IS NULL")
        story.code(
            f'vectorlake_iceberg.sync(table)\ntable.backfill_column("{COLUMN}", model.column, inputs=["name", "text"])\n'
            "table.optimize_indexes()",
            "python",
        )
        story.fact(
            "synced", f"{rows:,} → {table.count():,} rows in {milliseconds(story.seconds['sync_only'])}"
        )
        story.fact("to embed", f"{missing:,} rows: the new ones; all others keep their vectors", good=True)
        with story.timed("backfill"):
            table.backfill_column(COLUMN, model.column, inputs=["name", "text"])
        filled = sum(own_files(table)[path] for path in own_files(table).keys() - after_sync.keys())
        table.optimize_indexes(INDEX)
        covered = table.describe_index(INDEX).covered_rows
        story.fact(
            "sync wrote",
            f"{size_of(carried)}: vectors of rows that the source moved to other files, carried along",
        )
        story.fact("backfill wrote", f"{size_of(filled)}: the new rows' vectors, and nothing else", good=True)
        story.fact("index", f"{covered:,} of {table.count():,} rows, after optimize_indexes()", good=True)
        left = table.count(f"{COLUMN} IS NULL")
        if left or covered != table.count() or table.count() != rows + grown.appended - grown.deleted:
            raise DemoMismatchError(f"{left} rows without a vector, {table.count()} rows after the sync")
    return grown, {"embedded_after_sync": missing, "sync_bytes": carried, "backfill_bytes": filled}


def _travel(folder: DemoFolder, story: Story, table: vl.Table) -> None:
    with story.step(
        "travel", "Time travel", "Every commit is a version that stays readable; a tag gives one a name."
    ):
        story.rows(
            ("version", "operation", "rows"), [(s.version, s.operation, s.num_rows) for s in table.history()]
        )
        story.code(f'table.at("{TAG}").count()', "python")
        for when, at in ((TAG, table.at(TAG)), ("now", table)):
            story.fact(when, f"{at.count():,} rows, {at.count(LEAVING):,} of them deprecated classes")
        story.say(f"To go back: vectorlake restore {folder.lake} {TABLE} {TAG}")


def _verify(story: Story, table: vl.Table) -> tuple[int, int]:
    with story.step(
        "verify",
        "Verify",
        "Every file is there, of the recorded length, and our own have the recorded checksum.",
    ):
        findings = table.verify()
        files = len({file.path for fragment in table.view.fragments() for file in fragment.files})
        if findings:
            raise DemoMismatchError("; ".join(f"{finding.path} {finding.problem}" for finding in findings))
        story.fact("checked", f"{files} files: all is well", good=True)
    return len(findings), files


def _close(folder: DemoFolder, story: Story) -> None:
    story.end("Done", sum(story.seconds[name] for name in story.steps))
    lake = folder.lake
    story.say(f"The Iceberg table lies in {folder.iceberg}, the lake in {lake}. Try next:")
    story.commands(
        [
            (f"vectorlake info {lake} {TABLE}", "what the table is made of"),
            (
                f"vectorlake knn {lake} {TABLE} --query {folder.query} --metric cosine --columns name,text",
                f"“{QUESTIONS[0]}” again",
            ),
            (
                f"vectorlake knn {lake} {TABLE} --like 100 --metric cosine --columns name,text",
                "what is near row 100",
            ),
            (
                f'vectorlake query {lake} "SELECT kind, count(*) AS n FROM lake.{TABLE} GROUP BY ALL ORDER BY n DESC"',
                "SQL over it",
            ),
            (f"vectorlake history {lake} {TABLE}", "what happened to it"),
        ]
    )
