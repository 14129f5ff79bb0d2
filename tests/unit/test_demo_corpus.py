"""The demo's parts: harvesting docstrings, embedding them, and keeping them in an Iceberg table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from vectorlake.demo import corpus, embed, source
from vectorlake.errors import AlreadyExistsError, InvalidInputError, UnsupportedError

SAMPLE = '''"""What the sample module is there for."""
import os

try:
    def fast(x): "Twice the number, the quick way, in C."
except ImportError:
    def slow(x): "Twice the number, the slow way."

class Box(dict, metaclass=type):
    """A box that keeps things, and a tail.

    Keeps:
        Things.
    """
    async def fetch(self, key: str, /, *rest, default=None, **more) -> bytes:
        """Fetch a thing out of the box."""
        def inner():
            """Nobody sees this from the outside."""
    @deprecated("no")
    def old(self):
        """Still works, but better not."""
    def bare(self): ...

def gone():
    """Do it the old way.

    .. deprecated:: 1.2
    """
'''


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return pa.Table.from_batches(
        corpus.harvest(sources=[corpus.standard_library()], limit=1500, batch_rows=400)
    )


def sample(folder: Path, **files: str) -> corpus.Source:
    modules = []
    for module, text in files.items():
        path = folder / f"{module}.py"
        path.write_text(text, encoding="utf-8")
        modules.append((module, path))
    return corpus.Source("sample", "1.0", tuple(modules))


def test_a_module_is_read_without_being_imported(tmp_path: Path) -> None:
    sample(tmp_path, m=SAMPLE + "\nraise SystemExit('imported')")
    entries = {entry.name: entry for entry in corpus.read_module(tmp_path / "m.py", module="m")}
    assert list(entries) == ["m", "m.fast", "m.slow", "m.Box", "m.Box.fetch", "m.Box.old", "m.gone"]
    assert {name: (e.kind, e.signature, e.n_args) for name, e in entries.items()} == {
        "m": ("module", "", None),
        "m.fast": ("function", "fast(x)", 1),
        "m.slow": ("function", "slow(x)", 1),
        "m.Box": ("class", "Box(dict)", None),
        "m.Box.fetch": ("async method", "fetch(self, key: str, /, *rest, default=None, **more) -> bytes", 5),
        "m.Box.old": ("method", "old(self)", 1),
        "m.gone": ("function", "gone()", 0),
    }
    assert [name for name, entry in entries.items() if entry.deprecated] == ["m.Box.old", "m.gone"]
    assert entries["m.Box"].text == "A box that keeps things, and a tail.\n\nKeeps:\n    Things."
    assert entries["m.Box"].line == 9


@pytest.mark.parametrize(
    "content",
    [
        b'"""Text""" def broken(:',
        b'"""Nul \x00 byte, in the midst of it."""',
        b'# coding: klingon\n"""Some text."""',
        b'"""Not utf-8: \xff\xfe, and no coding line."""',
        b'"""never closed',
        b"",
    ],
)
def test_files_that_do_not_parse_are_left_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(content)
    assert list(corpus.read_module(path, module="bad")) == []
    assert list(corpus.read_module(tmp_path / "missing.py", module="missing")) == []


def test_rows_are_distinct_and_long_enough(tmp_path: Path) -> None:
    files = {
        "a": 'def f(): """Says the same thing in two places."""\n'
        'def f(): """A second definition of that name."""',
        "b": 'def g(): """Says the same thing in two places."""\n'
        'def h(): """Short."""\n'
        'def i(): """Has \\ud800, a lone surrogate, in it."""',
    }
    table = pa.Table.from_batches(corpus.harvest(sources=[sample(tmp_path, **files)]))
    assert table.schema.equals(corpus.SCHEMA)
    assert table["name"].to_pylist() == ["a.f", "b.i"]
    assert table["id"].to_pylist() == [0, 1]
    assert table["text"].to_pylist()[1] == "Has ?, a lone surrogate, in it."


def test_the_standard_library_yields_rows_in_a_fixed_order(rows: pa.Table) -> None:
    assert rows.num_rows == 1500
    assert [len(chunk) for chunk in rows["id"].chunks] == [400, 400, 400, 300]
    assert rows["id"].to_pylist() == list(range(1500))
    for distinct in ("name", "text"):
        assert len(rows[distinct].unique()) == 1500
    assert set(rows["kind"].unique().to_pylist()) >= {"module", "class", "function", "method"}
    assert set(rows["package"].to_pylist()) == {corpus.STDLIB}
    assert rows["module"].to_pylist() == sorted(rows["module"].to_pylist())
    assert pc.min(rows["length"]).as_py() >= 30
    assert rows["length"].equals(pc.utf8_length(rows["text"]))
    again = pa.Table.from_batches(corpus.harvest(sources=[corpus.standard_library()], limit=1500))
    assert again.combine_chunks().equals(rows.combine_chunks())


def test_the_standard_library_is_harvested_without_tests_and_packages() -> None:
    library = corpus.standard_library()
    modules = {module for module, _ in library.modules}
    assert {"argparse", "json", "json.decoder", "collections"} <= modules
    parts = {part for module in modules for part in module.split(".")}
    assert not parts & {"test", "tests", "pyarrow", "pip", "__init__"}


def test_installed_packages_come_in_name_order_with_their_versions() -> None:
    packages = list(corpus.installed_packages())
    names = [package.package for package in packages]
    assert names == sorted(set(names))
    arrow = next(package for package in packages if package.package == "pyarrow")
    assert arrow.version == pa.__version__
    assert "pyarrow.compute" in {module for module, _ in arrow.modules}
    assert not [module for module, _ in arrow.modules if ".tests" in module]


def test_a_limit_on_several_packages_counts_them_together(tmp_path: Path) -> None:
    files = {f"m{i}": f'def f(): """The docstring of function number {i}."""' for i in range(5)}
    package = sample(tmp_path, **files)
    other = corpus.Source("other", "2", package.modules)
    for limit, expected in [(0, 0), (3, 3), (5, 5), (99, 5), (None, 5)]:
        batches = corpus.harvest(sources=[package, other], limit=limit, batch_rows=2)
        assert sum(batch.num_rows for batch in batches) == expected


def test_embedding_text_has_the_words_of_names_and_no_markup(tmp_path: Path) -> None:
    text = 'class HTTPServer2: """Serve :class:`~http.Request` and ``GET`` calls, all day."""'
    table = pa.Table.from_batches(corpus.harvest(sources=[sample(tmp_path, web=text)]))
    assert corpus.embedding_text(table) == ["web http server 2\nServe http.Request and GET calls, all day."]


def test_vectors_have_unit_length_and_neighbours_have_the_same_meaning(rows: pa.Table) -> None:
    texts = corpus.embedding_text(rows)
    model = embed.Lsa(dimensions=64).fit(texts)
    vectors = model.encode(texts)
    assert vectors.shape == (1500, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(embed.Lsa(dimensions=64).fit(texts).encode(texts[:50]), vectors[:50])
    query = model.encode(["parse the arguments of a command line"])[0]
    best = np.argsort(-(vectors @ query))[:10]
    modules = rows["module"].take(best).to_pylist()
    assert sum(module in {"argparse", "cmd", "getopt", "optparse"} for module in modules) >= 5


def test_texts_without_known_words_embed_as_zeros(rows: pa.Table) -> None:
    model = embed.Lsa(dimensions=16).fit(corpus.embedding_text(rows))
    assert not model.encode(["", "qqqxyzzy"]).any()
    assert model.encode([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "0 texts"),
        (["the of and"] * 9, "9 texts"),
        (["apple banana", "cherry damson", "elder fig", "grape hazel"] * 2, "fewer dimensions"),
    ],
)
def test_too_little_to_learn_from_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        embed.Lsa(dimensions=8).fit(texts)


def test_an_embedder_that_was_not_fitted_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="fit"):
        embed.Lsa().encode(["text"])


def test_missing_packages_are_named_with_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks a module that must not be imported.
    for module in ("sklearn.decomposition", "pyiceberg.catalog.sql"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedError, match=r"vectorlake\[demo\]"):
        embed.Lsa().fit(["text"])
    with pytest.raises(UnsupportedError, match=r"vectorlake\[demo\]"):
        source.open_catalog(tmp_path)


def test_a_source_table_is_built_and_grows(tmp_path: Path, rows: pa.Table) -> None:
    first, later = source.split(rows.to_batches(), 1000)
    assert [sum(batch.num_rows for batch in part) for part in (first, later)] == [1000, 500]
    built = source.build_source(tmp_path / "with space é", first, appends=3)
    assert built.rows == 1000
    assert built.data_files >= 3 * 3
    assert [s.summary.operation.value for s in built.table.snapshots()] == ["append"] * 3
    assert built.table.scan().to_arrow().sort_by("id").equals(pa.Table.from_batches(first))

    doomed = pc.sum(rows["deprecated"]).as_py()
    assert doomed > 0
    growth = source.grow_source(built.table, later)
    assert (growth.appended, growth.deleted) == (500, doomed)
    assert growth.data_files == source.count_data_files(built.table)
    reopened = source.open_catalog(tmp_path / "with space é").load_table(source.TABLE)
    kept = rows.filter(pc.invert(rows["deprecated"])).combine_chunks()
    assert reopened.scan().to_arrow().sort_by("id").combine_chunks().equals(kept)
    with pytest.raises(AlreadyExistsError, match="remove it"):
        source.build_source(tmp_path / "with space é", first)


def test_a_source_table_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No rows"):
        source.build_source(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows_first", "expected"), [(0, (0, 5)), (2, (2, 3)), (3, (3, 2)), (5, (5, 0)), (9, (5, 0))]
)
def test_split_keeps_every_row_in_order(rows_first: int, expected: tuple[int, int]) -> None:
    batches = [pa.record_batch({"id": ids}) for ids in ([0, 1], [2, 3], [4])]
    first, later = source.split(batches, rows_first)
    assert tuple(sum(batch.num_rows for batch in part) for part in (first, later)) == expected
    ids = [value for batch in [*first, *later] for value in batch["id"].to_pylist()]
    assert ids == [0, 1, 2, 3, 4]
