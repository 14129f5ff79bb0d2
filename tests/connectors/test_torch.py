"""Tables as datasets of PyTorch: every row once, the same order for the same seed, and going on where it stopped."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vectorlake as vl
from vectorlake.errors import InvalidInputError, NotFoundError

torch = pytest.importorskip("torch")
vectorlake_torch = pytest.importorskip("vectorlake_torch")

from torch.utils.data import DataLoader  # noqa: E402


def rows_from(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    vectors = np.stack([ids, ids + 1, ids + 2], axis=1).astype("f4")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3)
    return pa.table({"id": ids, "name": [f"n{i}" for i in ids], "odd": ids % 2 == 1, "vec": flat})


@pytest.fixture
def items(tmp_path: Path) -> vl.Table:
    """Three fragments, of 100 rows that live."""
    table = vl.connect(tmp_path / "lake").create_table("ns.items", rows_from(0, 60))
    table.append(rows_from(60, 30))
    table.append(rows_from(90, 20))
    table.delete("id % 11 = 0")
    return table


def stream(table: vl.Table, **options: Any) -> Any:
    return vectorlake_torch.IterableTable(table, **({"batch_size": 16, "part_rows": 10} | options))


def ids(batches: Any) -> list[int]:
    return [i for batch in batches for i in batch["id"].tolist()]


ALL = [i for i in range(110) if i % 11]


def test_batches_are_tensors_in_the_tables_order(items: vl.Table) -> None:
    batches = list(stream(items))
    assert [len(batch["id"]) for batch in batches] == [16] * 6 + [4]
    assert ids(batches) == ALL
    first = batches[0]
    assert (first["vec"].shape, first["vec"].dtype) == ((16, 3), torch.float32)
    assert first["vec"][0].tolist() == [1.0, 2.0, 3.0]
    assert (first["odd"].dtype, first["name"][:2]) == (torch.bool, ["n1", "n2"])
    assert [len(batch["id"]) for batch in stream(items, drop_last=True)] == [16] * 6
    assert ids(stream(items, columns=["id"], filter="id < 5")) == [1, 2, 3, 4]


def test_tensors_can_be_written_to(items: vl.Table) -> None:
    """Also where the rows came from a file that is mapped into memory."""
    for batch in stream(items, batch_size=1000, part_rows=1000):
        batch["vec"] += 1
        batch["id"].zero_()
    assert ids(stream(items)) == ALL


def test_a_seed_shuffles_anew_for_each_epoch(items: vl.Table) -> None:
    dataset = stream(items, seed=7)
    first = ids(dataset)
    assert sorted(first) == ALL
    assert first != ALL
    assert ids(dataset) == ids(stream(items, seed=7)) == first
    assert ids(stream(items, seed=8)) != first
    dataset.set_epoch(1)
    second = ids(dataset)
    assert sorted(second) == ALL
    assert second != first


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 50])
def test_ranks_share_the_rows(items: vl.Table, seed: int | None, world_size: int) -> None:
    shares = [ids(stream(items, seed=seed, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(i for share in shares for i in share) == ALL


@pytest.mark.slow
def test_workers_share_the_rows_of_a_rank(items: vl.Table) -> None:
    """Two workers of the second of two ranks are the third and the fourth of four."""
    loader = DataLoader(
        stream(items, seed=5, rank=1, world_size=2),
        batch_size=None,
        num_workers=2,
        multiprocessing_context="spawn",
    )
    found = ids(loader)
    for rank in range(2):
        found += ids(stream(items, seed=5, rank=rank, world_size=4))
    assert sorted(found) == ALL


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("after", [0, 1, 3, 6, 7])
def test_it_goes_on_where_it_stopped(items: vl.Table, seed: int | None, after: int) -> None:
    whole = ids(stream(items, seed=seed))
    dataset = stream(items, seed=seed)
    iterator = iter(dataset)
    seen = ids(next(iterator) for _ in range(after))
    state = pickle.loads(pickle.dumps(dataset.state_dict()))
    resumed = stream(items, seed=seed)
    resumed.load_state_dict(state)
    assert seen + ids(resumed) == whole
    assert ids(resumed) == whole  # the next time from the start


def test_a_state_of_another_stream_is_refused(items: vl.Table) -> None:
    state = stream(items, seed=3).state_dict()
    for other in (
        stream(items, seed=4),
        stream(items, seed=3, rank=0, world_size=2),
        stream(items.at(2), seed=3),
    ):
        with pytest.raises(
            InvalidInputError, match=r"the state is of (seed|share|version) .*resume with the same"
        ):
            other.load_state_dict(state)


def test_it_stays_at_its_version_and_can_be_pickled(items: vl.Table) -> None:
    dataset, rows = stream(items), vectorlake_torch.MapTable(items)
    items.delete("id >= 0")
    assert ids(dataset) == ALL
    assert len(rows) == len(ALL)
    assert ids(pickle.loads(pickle.dumps(dataset))) == ALL
    assert pickle.loads(pickle.dumps(rows))[3]["id"] == 4


def test_rows_by_position(items: vl.Table) -> None:
    rows = vectorlake_torch.MapTable(items, columns=["name", "vec", "id"], filter="id > 50")
    assert len(rows) == len([i for i in ALL if i > 50])
    row = rows[1]
    assert list(row) == ["name", "vec", "id"]
    assert (row["name"], row["vec"].tolist(), row["id"].item()) == ("n52", [52.0, 53.0, 54.0], 52)
    assert rows[-1]["id"].item() == 109
    with pytest.raises(IndexError):
        rows[1000]
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(vectorlake_torch.MapTable(items), batch_size=32, shuffle=True, generator=generator)
    batches = list(loader)
    assert sorted(ids(batches)) == ALL
    assert batches[0]["vec"].shape == (32, 3)
    assert torch.equal(batches[0]["vec"][:, 0], batches[0]["id"].to(torch.float32))


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_()], ids=str
)
def test_types_of_tensors(kind: pa.DataType) -> None:
    column = pa.chunked_array([[1, 0], [1, 1]], pa.int8()).cast(kind)
    tensor = vectorlake_torch.tensors(pa.table({"x": column}).slice(1))["x"]
    assert tensor.tolist() == [0, 1, 1]
    assert str(tensor.dtype).removeprefix("torch.") == {
        "halffloat": "float16",
        "float": "float32",
        "double": "float64",
    }.get(str(kind), str(kind))


def test_vectors_at_an_offset_and_matrices() -> None:
    vectors = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2))
    nested = pa.array([[[1, 2]], [[3, 4]], [[5, 6]]], pa.list_(pa.list_(pa.float32(), 2), 1))
    found = vectorlake_torch.tensors(pa.table({"v": vectors, "m": nested}).slice(1, 2))
    assert found["v"].tolist() == [[3, 4], [5, 6]]
    assert found["m"].shape == (2, 1, 2)
    assert found["m"].tolist() == [[[3, 4]], [[5, 6]]]


def test_errors_say_what_to_do(items: vl.Table) -> None:
    items.append(
        {"id": [500], "name": ["none"], "odd": [None], "vec": pa.nulls(1, pa.list_(pa.float32(), 3))}
    )
    with pytest.raises(InvalidInputError, match=r"column 'vec' holds null.*filter='vec IS NOT NULL'"):
        list(stream(items, columns=["id", "vec"]))
    with pytest.raises(InvalidInputError, match="column 'odd' holds null"):
        list(stream(items, columns=["odd"]))
    assert ids(stream(items, columns=["id", "vec"], filter="vec IS NOT NULL")) == ALL
    with pytest.raises(NotFoundError, match="did you mean 'name'"):
        stream(items, columns=["nam"])
    with pytest.raises(InvalidInputError, match="batch_size must be a positive integer, not 0"):
        stream(items, batch_size=0)
    with pytest.raises(InvalidInputError, match="rank must be from 0 to 1, not 2"):
        stream(items, rank=2, world_size=2)
    with pytest.raises(InvalidInputError, match="go together"):
        stream(items, rank=0)
