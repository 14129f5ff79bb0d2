"""What every kind of index promises, for each of them with its variants, metrics and element types."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorlake.errors import CorruptDataError, InvalidInputError
from vectorlake.index.arrays import ArrayFile, MemoryArrays
from vectorlake.index.protocol import NO_SLOT, ROW_IDS, Ask, Config, Facts, Searcher, for_singles
from vectorlake.index.registry import kind_named, kind_names
from vectorlake.index.slots import slot_words
from vectorlake.kernels import Metric, pairwise_distances
from vectorlake.store import open_store
from vectorlake.testing.index_kinds import Made, Recipe, Stored, ask_all, found_ids, merged, stored

ROWS, DIMENSION, CLUSTERS = 480, 32, 12
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ivf": [
        {"codes": "rabitq", "bits": 1, "nlist": 8},
        {"codes": "rabitq", "bits": 2, "nlist": 8},
        {"codes": "rabitq", "bits": 4, "nlist": 8},
        {"codes": "pq", "nlist": 8},
        {"codes": "int8", "nlist": 8},
        {"codes": "flat", "nlist": 8},
    ],
}
"""Options that make a kind another algorithm; kinds not listed are tested as they are by default."""


def names(options: dict[str, Any]) -> str:
    return "-".join(str(value) for name, value in options.items() if name != "nlist")


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in kind_names():
        # Kinds that are listed before they are written.
        if name != "flat" and importlib.util.find_spec(f"vectorlake.index.{name}") is None:
            continue
        for options in VARIANTS.get(name, [{}]):
            yield name, options


ALL = list(variants())
IDS = [f"{name}-{names(options)}" if options else name for name, options in ALL]
EVERY = [
    pytest.param(name, options, metric, element, id=f"{label}-{metric.value}-{element}")
    for (name, options), label in zip(ALL, IDS, strict=True)
    for metric in sorted(kind_named(name).metrics)
    for element in sorted(kind_named(name).elements)
    if metric is not Metric.HAMMING or (element == "uint8" and options.get("codes", "flat") == "flat")
]
each_kind = pytest.mark.parametrize(("name", "options"), ALL, ids=IDS)
everything = pytest.mark.parametrize(("name", "options", "metric", "element"), EVERY)


def recipe(name: str, options: dict[str, Any], metric: Metric | None = None, **given: Any) -> Recipe:
    kind = kind_named(name)
    return Recipe(
        kind, metric or (Metric.L2 if Metric.L2 in kind.metrics else min(kind.metrics)), options, **given
    )


def element_of(name: str) -> str:
    elements = kind_named(name).elements
    return "float32" if "float32" in elements else min(elements)


def clustered(rows: int, element: str, *, seed: int = 1) -> npt.NDArray[Any]:
    """Vectors [rows, DIMENSION] about CLUSTERS centres that are the same for all seeds, each row distinct."""
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, DIMENSION))
    rng = np.random.default_rng(seed)
    values = centres[rng.integers(0, CLUSTERS, rows)] + 0.4 * rng.normal(size=(rows, DIMENSION))
    if element in ("int8", "uint8"):
        info = np.iinfo(element)
        shifted = values * 30 + (0 if element == "int8" else 128)
        return np.clip(np.rint(shifted), info.min, info.max).astype(element)
    return values.astype(element)


def asked(count: int, element: str, metric: Metric, *, seed: int = 2) -> npt.NDArray[Any]:
    queries = clustered(count, element, seed=seed)
    return queries if metric.value == "hamming" else queries.astype(np.float32)


def truth(queries: npt.NDArray[Any], vectors: npt.NDArray[Any], metric: Metric) -> npt.NDArray[np.float64]:
    return pairwise_distances(queries, vectors, metric)


def check_shape(searcher: Searcher, ask: Ask) -> npt.NDArray[np.int64]:
    """Search and check what holds of every answer; the slots nominated."""
    nominated = searcher.search(ask)
    slots, estimates = nominated.slots, nominated.estimates
    assert slots.shape == estimates.shape == (len(ask.queries), ask.pool)
    assert (slots.dtype, estimates.dtype) == (np.int64, np.float32)
    some = slots != NO_SLOT
    assert np.isfinite(estimates[some]).all()
    assert (estimates[~some] == np.inf).all()
    assert ((slots[some] >= 0) & (slots[some] < len(searcher.row_ids))).all()
    assert (searcher.row_ids[slots[some]] >= 0).all(), "an empty slot was nominated"
    for row in slots:
        kept = row[row != NO_SLOT]
        assert len(np.unique(kept)) == len(kept), "a slot was nominated twice"
    assert nominated.probed >= 0
    assert nominated.scored >= int(some.any())
    return slots


def by_row(searcher: Searcher, queries: npt.NDArray[Any]) -> list[dict[int, float]]:
    """Row id → estimate of each query, everything looked at."""
    found = ask_all(searcher, queries)
    return [
        {int(searcher.row_ids[s]): float(e) for s, e in zip(slots, estimates, strict=True) if s != NO_SLOT}
        for slots, estimates in zip(found.slots, found.estimates, strict=True)
    ]


def same_answers(one: Searcher, other: Searcher, queries: npt.NDArray[Any], *, exhaustive: bool) -> None:
    """Both nominate the same rows with the same estimates (of a graph: nearly all)."""
    for a, b in zip(by_row(one, queries), by_row(other, queries), strict=True):
        if exhaustive:
            assert a.keys() == b.keys()
        else:
            assert len(a.keys() & b.keys()) >= 0.98 * max(len(a), len(b))
        shared = sorted(a.keys() & b.keys())
        left, right = np.array([a[i] for i in shared]), np.array([b[i] for i in shared])
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(left).max(initial=0)))


@everything
def test_everything_probed_finds_what_a_scan_finds(
    name: str, options: dict[str, Any], metric: Metric, element: str
) -> None:
    kind = kind_named(name)
    vectors = clustered(ROWS, element)
    ids = np.random.default_rng(3).permutation(10 * ROWS)[:ROWS]
    made = recipe(name, options, metric).make(vectors, ids)
    searcher = made.opened()
    queries = asked(7, element, metric)
    slots = check_shape(searcher, Ask(queries, len(searcher.row_ids), searcher.largest_effort))
    for row in slots:
        found = searcher.row_ids[row[row != NO_SLOT]]
        if kind.exhaustive:
            assert sorted(found) == sorted(ids)
        else:
            assert len(found) >= 0.98 * ROWS
    assert sorted(searcher.row_ids[searcher.row_ids >= 0]) == sorted(ids)


@everything
def test_estimates_follow_the_distances(
    name: str, options: dict[str, Any], metric: Metric, element: str
) -> None:
    vectors = clustered(ROWS, element)
    searcher = recipe(name, options, metric).make(vectors).opened()
    queries = asked(8, element, metric)
    known = truth(queries, vectors, metric)
    for estimates, distances in zip(by_row(searcher, queries), known, strict=True):
        rows = sorted(estimates)
        guess = np.array([estimates[row] for row in rows])
        real = distances[rows]
        assert np.corrcoef(guess, real)[0, 1] > 0.85
        # They are on the scale of the distances too: a pool is cut across segments of several models by them.
        assert np.median(np.abs(guess - real)) < 0.5 * np.std(real)


@everything
def test_recall_on_clustered_data(name: str, options: dict[str, Any], metric: Metric, element: str) -> None:
    vectors = clustered(ROWS, element)
    made = recipe(name, options, metric).make(vectors)
    searcher = made.opened()
    queries = asked(30, element, metric)
    known = truth(queries, vectors, metric)
    tenth = np.sort(known, axis=1)[:, 9]
    ladder = made.kind.efforts(made.config, ROWS)
    assert ladder
    assert all(effort >= 1 and pool >= 10 for effort, pool in ladder)
    recalls = []
    for effort, pool in (ladder[0], ladder[-1]):
        slots = searcher.search(Ask(queries, pool, effort)).slots
        # As near as the tenth counts: several may be equally far.
        hits = [
            min(10, int((distances[searcher.row_ids[row[row != NO_SLOT]]] <= limit).sum()))
            for row, distances, limit in zip(slots, known, tenth, strict=True)
        ]
        recalls.append(np.mean(hits) / 10)
    assert recalls[-1] >= 0.95, "the top of the ladder must be good"
    assert recalls[0] >= 0.3, "its foot must be better than nothing"


@everything
def test_only_allowed_slots(name: str, options: dict[str, Any], metric: Metric, element: str) -> None:
    kind = kind_named(name)
    vectors = clustered(ROWS, element)
    searcher = recipe(name, options, metric).make(vectors).opened()
    queries = asked(5, element, metric)
    slots = len(searcher.row_ids)
    rng = np.random.default_rng(4)
    for share in (0.0, 0.01, 0.3, 1.0):
        mask = rng.random(slots) < share
        words = slot_words(mask)
        found = check_shape(searcher, Ask(queries, slots, searcher.largest_effort, words, share))
        wanted = np.flatnonzero(mask & (searcher.row_ids >= 0))
        for row in found:
            got = np.sort(row[row != NO_SLOT])
            assert mask[got].all(), "a slot that is not allowed was nominated"
            if kind.exhaustive:
                assert got.tolist() == wanted.tolist()
            else:
                assert len(got) >= 0.9 * len(wanted)


@each_kind
def test_a_small_pool_has_the_best_estimates(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    made = recipe(name, options)
    searcher = made.make(vectors).opened()
    queries = asked(6, element_of(name), made.metric)
    whole = ask_all(searcher, queries)
    for pool in (1, 3, 40):
        ask = Ask(queries, pool, searcher.largest_effort)
        check_shape(searcher, ask)
        few = searcher.search(ask)
        best = np.sort(whole.estimates, axis=1)[:, :pool]
        scale = np.abs(best).max()
        if searcher_is_exhaustive(name):
            np.testing.assert_allclose(np.sort(few.estimates, axis=1), best, rtol=1e-3, atol=1e-3 * scale)
        else:
            assert np.mean(np.sort(few.estimates, axis=1) <= best + 1e-3 * scale) > 0.9


def searcher_is_exhaustive(name: str) -> bool:
    return kind_named(name).exhaustive


@each_kind
def test_every_effort_and_thread_count_answers(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    made = recipe(name, options)
    searcher = made.make(vectors).opened()
    queries = asked(9, element_of(name), made.metric)
    assert searcher.largest_effort >= 1
    for effort in {1, 2, searcher.largest_effort, searcher.largest_effort + 1000}:
        answers = []
        for threads in (1, 3):
            ask = Ask(queries, 15, effort, threads=threads)
            check_shape(searcher, ask)
            found = searcher.search(ask)
            answers.append(np.sort(found.slots, axis=1))
        np.testing.assert_array_equal(answers[0], answers[1])
    for count in (0, 1):
        check_shape(searcher, Ask(queries[:count], 5, 2))
    alone = [np.sort(searcher.search(Ask(queries[i : i + 1], 15, 2)).slots[0]) for i in range(len(queries))]
    together = np.sort(searcher.search(Ask(queries, 15, 2)).slots, axis=1)
    agreement = np.mean([np.isin(a, b).mean() for a, b in zip(alone, together, strict=True)])
    # A batch may round its estimates otherwise than a single query does.
    assert agreement > 0.95


@each_kind
def test_singles_are_answered_as_they_are_asked_for_one_by_one(name: str, options: dict[str, Any]) -> None:
    made = recipe(name, options)
    searcher = made.make(clustered(ROWS, element_of(name))).opened()
    queries = asked(10, element_of(name), made.metric)
    slots = len(searcher.row_ids)
    for share in (1.0, 0.6, 0.05):
        mask = np.random.default_rng(11).random(slots) < share
        for effort in (1, 8, searcher.largest_effort):
            terms = Ask(queries[:0], 12, effort, None if share == 1 else slot_words(mask), share)
            single = for_singles(searcher, terms)
            for query in queries[:, None]:
                query.flags.writeable = False
                found, wanted = single(query), searcher.search(replace(terms, queries=query))
                np.testing.assert_array_equal(found.slots, wanted.slots)
                np.testing.assert_array_equal(found.estimates, wanted.estimates)


@each_kind
def test_a_pool_larger_than_the_segment(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(50, element_of(name))
    made = recipe(name, small(name, options))
    searcher = made.make(vectors).opened()
    ask = Ask(asked(3, element_of(name), made.metric), len(searcher.row_ids) + 40, searcher.largest_effort)
    for row in check_shape(searcher, ask):
        assert (row != NO_SLOT).sum() == 50


def small(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options for few rows."""
    return {**options, "nlist": 1} if "nlist" in options else options


@each_kind
def test_building_in_many_blocks_is_building_in_one(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    made = recipe(name, options)
    trained = made.train(vectors)
    ids = np.arange(ROWS)[::-1].copy()
    queries = asked(5, element_of(name), made.metric)
    whole = made.build(trained, vectors, ids).opened()
    for block_rows in (1, 7, 479):
        parts = made.build(trained, vectors, ids, block_rows=block_rows).opened()
        same_answers(whole, parts, queries, exhaustive=made.kind.exhaustive)


@each_kind
def test_empty_blocks_and_no_blocks(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    made = recipe(name, options)
    trained = made.train(vectors)
    nothing = made.build(trained, vectors[:0], np.empty(0, np.int64))
    searcher = nothing.opened()
    queries = asked(3, element_of(name), made.metric)
    assert (check_shape(searcher, Ask(queries, 4, searcher.largest_effort)) == NO_SLOT).all()
    full = made.build(trained, vectors, np.arange(ROWS))
    both = merged([nothing, full], [part.segment[ROW_IDS] >= 0 for part in (nothing, full)]).opened()
    assert len(found_ids(both, ask_all(both, queries))[0]) >= 0.98 * ROWS


@each_kind
def test_merging_is_building_the_union(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    vectors[1:ROWS:7] = vectors[0 : ROWS - 1 : 7]  # duplicates, side by side and so in one part
    made = recipe(name, options)
    trained = made.train(vectors)
    ids = np.random.default_rng(5).permutation(ROWS)
    bounds = [0, 1, 200, 350, ROWS]
    parts = [made.build(trained, vectors[a:b], ids[a:b]) for a, b in itertools.pairwise(bounds)]
    queries = asked(5, element_of(name), made.metric)
    dropped = np.random.default_rng(6).random(ROWS) < 0.3
    for drop in (np.zeros(ROWS, bool), dropped, np.ones(ROWS, bool)):
        kept = [(part.segment[ROW_IDS] >= 0) & ~drop[part.segment[ROW_IDS]] for part in parts]
        together = merged(parts, kept).opened()
        staying = ~drop[ids]
        union = made.build(trained, vectors[staying], ids[staying]).opened()
        assert sorted(together.row_ids[together.row_ids >= 0]) == sorted(ids[staying])
        same_answers(together, union, queries, exhaustive=made.kind.exhaustive)
        check_shape(together, Ask(queries, 10, 1))


@each_kind
def test_a_merged_segment_merges_again(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    made = recipe(name, options)
    trained = made.train(vectors)
    parts = [made.build(trained, vectors[i::3], np.arange(ROWS)[i::3]) for i in range(3)]
    kept = [part.segment[ROW_IDS] >= 0 for part in parts]
    once = merged(parts[:2], kept[:2])
    twice = merged([once, parts[2]], [once.segment[ROW_IDS] >= 0, kept[2]])
    same_answers(
        twice.opened(),
        merged(parts, kept).opened(),
        asked(4, element_of(name), made.metric),
        exhaustive=made.kind.exhaustive,
    )


@each_kind
@pytest.mark.parametrize("where", ["local", "memory"])
def test_opened_from_files(name: str, options: dict[str, Any], where: str, tmp_path: Path) -> None:
    vectors = clustered(ROWS, element_of(name))
    made = recipe(name, options)
    segment = made.make(vectors)
    store = open_store(tmp_path / "store") if where == "local" else open_store("memory://")
    files = stored(segment, store, tmp_path)
    queries = asked(6, element_of(name), made.metric)
    same_answers(files.opened(), segment.opened(), queries, exhaustive=made.kind.exhaustive)
    for effort in (1, 3):
        ask = Ask(queries, 12, effort)
        opened = files.opened()
        check_shape(opened, ask)
        one, other = opened.search(ask), segment.opened().search(ask)
        agreement = [np.isin(a, b).mean() for a, b in zip(one.slots, other.slots, strict=True)]
        assert np.mean(agreement) > 0.95
        # A second time, from what was kept.
        np.testing.assert_array_equal(np.sort(opened.search(ask).slots), np.sort(one.slots))


@each_kind
def test_arrays_are_plain_numbers_with_row_ids(name: str, options: dict[str, Any]) -> None:
    made = recipe(name, options).make(clustered(ROWS, element_of(name)))
    for arrays in (made.model, made.segment):
        for key, array in arrays.items():
            assert isinstance(array, np.ndarray), key
            assert array.dtype.kind in "iufb", f"{key} is of {array.dtype}"
    ids = made.segment[ROW_IDS]
    assert (ids.dtype, ids.ndim) == (np.int64, 1)
    for key, bounds in made.cuts.items():
        assert bounds[0] == 0
        assert bounds[-1] == len(made.segment[key])
        assert (np.diff(bounds) >= 0).all()


@each_kind
def test_the_same_seed_makes_the_same_arrays(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    one, other = (recipe(name, options).make(vectors) for _ in range(2))
    for a, b in ((one.model, other.model), (one.segment, other.segment)):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@each_kind
def test_training_leaves_vectors_as_they_are(name: str, options: dict[str, Any]) -> None:
    vectors = clustered(ROWS, element_of(name))
    vectors.setflags(write=False)
    made = recipe(name, options)
    searcher = made.make(vectors).opened()
    queries = asked(3, element_of(name), made.metric)
    before = queries.copy()
    queries.setflags(write=False)
    ask_all(searcher, queries)
    np.testing.assert_array_equal(queries, before)


def odd_data(shape: str, element: str) -> npt.NDArray[Any]:
    vectors = clustered(120, element)
    match shape:
        case "one row":
            return vectors[:1]
        case "two rows":
            return vectors[:2]
        case "constant":
            return np.repeat(vectors[:1], 120, axis=0)
        case "duplicates":
            return np.repeat(vectors[:6], 20, axis=0)
        case "zeros":
            return np.zeros_like(vectors)
        case "some zeros":
            vectors[::3] = 0
            return vectors
        case "one far away":
            vectors[7] = np.iinfo(element).max if element in ("int8", "uint8") else 3e4
            return vectors
        case _:
            raise AssertionError(shape)


ODD = ["one row", "two rows", "constant", "duplicates", "zeros", "some zeros", "one far away"]


@each_kind
@pytest.mark.parametrize("shape", ODD)
def test_odd_data(name: str, options: dict[str, Any], shape: str) -> None:
    """Whatever the data, every row that has a distance is found (by default: the number of partitions is chosen)."""
    options = {key: value for key, value in options.items() if key != "nlist"}
    for metric in sorted(kind_named(name).metrics):
        if metric is Metric.HAMMING and options.get("codes", "flat") != "flat":
            continue
        element = "uint8" if metric.value == "hamming" else element_of(name)
        vectors = odd_data(shape, element)
        searcher = recipe(name, options, metric).make(vectors).opened()
        queries = np.concatenate(
            [asked(2, element, metric), vectors[:1].astype(asked(1, element, metric).dtype)]
        )
        slots = check_shape(searcher, Ask(queries, len(searcher.row_ids), searcher.largest_effort))
        known = np.isfinite(truth(queries, vectors, metric))
        for row, has_distance in zip(slots, known, strict=True):
            found = searcher.row_ids[row[row != NO_SLOT]]
            missed = set(np.flatnonzero(has_distance).tolist()) - set(found.tolist())
            allowance = 0 if searcher_is_exhaustive(name) else int(0.02 * len(vectors))
            assert len(missed) <= allowance, f"{metric.value}: rows {sorted(missed)[:5]}… were not found"


@each_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_harm_no_others(name: str, options: dict[str, Any], value: float) -> None:
    element = element_of(name)
    if not element.startswith("float"):
        pytest.skip("integers are always finite")
    vectors = clustered(ROWS, element)
    bad = np.zeros(ROWS, bool)
    bad[[0, 5, 200]] = True
    vectors[bad, 3] = value
    made = recipe(name, options)
    segment = made.make(vectors)
    for array in segment.model.values():
        assert array.dtype.kind != "f" or np.isfinite(array).all()
    searcher = segment.opened()
    slots = check_shape(
        searcher, Ask(asked(4, element, made.metric), len(searcher.row_ids), searcher.largest_effort)
    )
    for row in slots:
        found = searcher.row_ids[row[row != NO_SLOT]]
        missing = set(np.flatnonzero(~bad).tolist()) - set(found.tolist())
        assert len(missing) <= (0 if made.kind.exhaustive else 0.02 * ROWS)


@each_kind
def test_nothing_to_learn_from(name: str, options: dict[str, Any]) -> None:
    """No rows at all: a clear refusal, or an index that answers with nothing."""
    vectors = clustered(0, element_of(name))
    made = recipe(name, {key: value for key, value in options.items() if key != "nlist"})
    with contextlib.suppress(InvalidInputError):
        searcher = made.make(vectors).opened()
        queries = asked(2, element_of(name), made.metric)
        assert (check_shape(searcher, Ask(queries, 3, searcher.largest_effort)) == NO_SLOT).all()


@each_kind
def test_more_partitions_than_rows(name: str, options: dict[str, Any]) -> None:
    if "nlist" not in options:
        pytest.skip("this kind has no partitions")
    kind = kind_named(name)
    facts = Facts(20, DIMENSION, element_of(name), recipe(name, options).metric)
    with pytest.raises(InvalidInputError, match=r"\b(20|21)\b"):
        kind.resolve(facts, {**options, "nlist": 21})


@each_kind
def test_options_are_settled_and_explained(name: str, options: dict[str, Any]) -> None:
    kind = kind_named(name)
    metric = recipe(name, options).metric
    for rows in (1, 2, 40, 1_000, 100_000, 10_000_000, 3_000_000_000):
        settled = kind.resolve(Facts(rows, DIMENSION, element_of(name), metric), small(name, options))
        for key, value in small(name, options).items():
            assert settled.options[key] == value
        assert settled.chosen.keys() == settled.options.keys() - small(name, options).keys()
        assert all(reason for reason in settled.chosen.values())
        again = kind.resolve(Facts(rows, DIMENSION, element_of(name), metric), settled.options)
        assert dict(again.options) == dict(settled.options), "what was settled must be allowed again"


@each_kind
def test_unknown_options(name: str, options: dict[str, Any]) -> None:
    kind = kind_named(name)
    facts = Facts(100_000, DIMENSION, element_of(name), recipe(name, options).metric)
    with pytest.raises(InvalidInputError, match="'nlits'"):
        kind.resolve(facts, {**options, "nlits": 3})
    for key in kind.resolve(facts, options).options:
        for wrong in (object(), -1, "no such value", 1.5 if key in ("energy", "visits") else 0.123):
            with pytest.raises(InvalidInputError, match=key):
                kind.resolve(facts, {**options, key: wrong})


@each_kind
def test_a_flipped_byte_is_found_and_named(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    made = recipe(name, options).make(clustered(ROWS, element_of(name)))
    for where in ("local", "memory"):
        store = open_store(tmp_path / where) if where == "local" else open_store("memory://")
        files = stored(made, store, tmp_path)
        for file in (files.model, files.segment):
            whole = store.get(file.path)
            for key, info in file.arrays.items():
                size = int(np.prod(info.shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize
                if not size:
                    continue
                damaged = bytearray(whole)
                damaged[info.offset + size // 2] ^= 0x10
                store.put(file.path, bytes(damaged))
                with pytest.raises(CorruptDataError) as raised:
                    np.asarray(ArrayFile(store, file)[key])
                assert file.path in str(raised.value)
                assert repr(key) in str(raised.value)
            store.put(file.path, whole)
        assert files.opened().row_ids.size


def search_and_name(files: Stored, queries: npt.NDArray[Any]) -> None:
    """What a caller does: search, then look up the ids of what was nominated."""
    searcher = files.opened()
    ask_all(searcher, queries)
    assert searcher.row_ids.size


@each_kind
def test_damage_shows_in_a_search_of_remote_parts(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Parts that are fetched by range are checked one by one, so that no answer comes from damaged codes."""
    made = recipe(name, options).make(clustered(ROWS, element_of(name)))
    store = open_store("memory://")
    files = stored(made, store, tmp_path)
    queries = asked(3, element_of(name), made.config.metric)
    whole = store.get(files.segment.path)
    for key in made.segment:
        info = files.segment.arrays[key]
        size = int(np.prod(info.shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize
        if not size:
            continue
        damaged = bytearray(whole)
        damaged[info.offset + size // 3] ^= 0x01
        store.put(files.segment.path, bytes(damaged))
        with pytest.raises(CorruptDataError, match=key):
            search_and_name(files, queries)


@each_kind
def test_arrays_that_do_not_fit_each_other(name: str, options: dict[str, Any]) -> None:
    made = recipe(name, options).make(clustered(ROWS, element_of(name)))
    model = MemoryArrays(made.model, {})
    for key in made.segment:
        without = {k: v for k, v in made.segment.items() if k != key}
        with pytest.raises((CorruptDataError, KeyError)):
            kind_open(made, model, without)
    cut = {**made.segment, ROW_IDS: made.segment[ROW_IDS][:-1]}
    with pytest.raises(CorruptDataError):
        kind_open(made, model, cut)


def kind_open(made: Made, model: MemoryArrays, arrays: dict[str, np.ndarray]) -> Searcher:
    opened = made.kind.open(model, MemoryArrays(arrays, {}), made.config)
    queries = asked(2, made.config.element, made.config.metric)
    ask_all(opened, queries)
    return opened


def test_kinds_tell_what_they_can() -> None:
    for name in {name for name, _ in ALL}:
        kind = kind_named(name)
        assert kind.name == name
        assert kind.version >= 1
        assert kind.metrics
        assert kind.elements <= {"float16", "float32", "float64", "int8", "uint8"}
        assert isinstance(kind.exhaustive, bool)
        config = Config(name, min(kind.metrics), DIMENSION, "float32", {})
        assert config.options == {}
