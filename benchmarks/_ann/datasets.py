"""Data sets: ann-benchmarks HDF5 files and folders of `.npy` files, read once and handed to contestants as arrays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from _ann.protocol import Data, JoinTruth, Unreadable

TRUTH = 100
"""How many true neighbours are computed where a set does not bring them."""
JOIN_SAMPLE = 300
"""Rows of a self-join whose recall is measured."""
SYNTHETIC = "synthetic"
_METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "dot", "ip": "dot"}
_Read = tuple[np.ndarray, np.ndarray, np.ndarray | None, str]


def read(where: str, *, rows: int | None, metric: str | None, k: int) -> Data:
    """Read a set, cut to its first `rows`; the true neighbours are computed exactly where the file's don't hold.

    Args:
        where: "synthetic" for clustered random vectors, a file with `train`, `test`, perhaps `neighbors`, and the
            attribute `distance`, or a folder with `vectors.npy`, `query_vectors.npy` and perhaps `neighbors.npy`.
        rows: None for all.
        metric: None for the file's own; folders are read as cosine.
        k: so many neighbours at least must be known of each query.

    Raises:
        Unreadable: there is no such set, it holds something else, or k is more than it has rows.
    """
    path = Path(where)
    if where == SYNTHETIC:
        base, queries, neighbors, own = _synthetic()
    else:
        base, queries, neighbors, own = _folder(path) if path.is_dir() else _hdf5(path)
    element = str(base.dtype)
    metric = metric or own
    if metric not in _METRICS.values():
        raise Unreadable(f"{where} has the metric {metric!r}; only l2, cosine and dot are compared")
    if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1] or not len(queries):
        raise Unreadable(f"{where} holds vectors of shape {base.shape} and queries of shape {queries.shape}")
    cut = rows is not None and rows < len(base)
    base = np.ascontiguousarray(base[:rows], np.float32)
    if k > len(base):
        raise Unreadable(f"{where} has {len(base):,} rows, fewer than the {k:,} neighbours asked for")
    queries = np.ascontiguousarray(queries, np.float32)
    if metric == "cosine":
        base, queries = _unit(base), _unit(queries)
    if neighbors is None or cut or metric != own or neighbors.shape[1] < k:
        neighbors = _exact(base, queries, metric, max(k, min(TRUTH, len(base))))
    return Data(f"{path.stem}-{len(base)}", base, queries, neighbors, metric, element)


def with_join(data: Data, rows: int, k: int) -> Data:
    """The set with the truth about a self-join of its first rows."""
    rows = min(rows, len(data.base))
    sample = np.random.default_rng(1).choice(rows, min(JOIN_SAMPLE, rows), replace=False)
    return replace(data, join=JoinTruth(rows, sample, _exact(data.base, data.base[sample], data.metric, k)))


def save(data: Data, folder: Path) -> None:
    """Write a set for `load`, which needs numpy alone."""
    arrays = {"base": data.base, "queries": data.queries, "neighbors": data.neighbors}
    facts: dict[str, object] = {"name": data.name, "metric": data.metric, "element": data.element}
    if data.join:
        facts["join_rows"] = data.join.rows
        arrays |= {"join_sample": data.join.sample, "join_neighbors": data.join.neighbors}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "facts.json").write_text(json.dumps(facts))


def load(folder: Path) -> Data:
    """A set as `save` wrote it."""
    facts = json.loads((folder / "facts.json").read_text())
    rows = facts.pop("join_rows", None)
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    sample, neighbors = arrays.pop("join_sample", None), arrays.pop("join_neighbors", None)
    return Data(**facts, **arrays, join=None if rows is None else JoinTruth(rows, sample, neighbors))


def _synthetic() -> _Read:
    """30,000 vectors of 128 dimensions about 300 centres."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(300, 128))
    every = centres[rng.integers(0, 300, 30_500)] + 0.7 * rng.normal(size=(30_500, 128))
    return every[500:].astype(np.float16), every[:500].astype(np.float32), None, "cosine"


def _folder(path: Path) -> _Read:
    base, queries, neighbors = (path / f"{name}.npy" for name in ("vectors", "query_vectors", "neighbors"))
    for needed in (base, queries):
        if not needed.exists():
            raise Unreadable(
                f"{path} has no {needed.name}; give --data a folder that has one, or an HDF5 file"
            )
    try:
        return np.load(base), np.load(queries), np.load(neighbors) if neighbors.exists() else None, "cosine"
    except ValueError as e:
        raise Unreadable(f"{path} holds a file that numpy can't read: {e}") from e


def _hdf5(path: Path) -> _Read:
    if not path.exists():
        raise Unreadable(f"there is no file or folder {path}")
    try:
        import h5py
    except ImportError as e:
        raise Unreadable(f"reading {path} takes h5py (pip install 'vectorlake[bench]')") from e
    try:
        with h5py.File(path) as file:
            known = np.asarray(file["neighbors"]) if "neighbors" in file else None
            distance = file.attrs.get("distance", "euclidean")
            distance = distance.decode() if isinstance(distance, bytes) else str(distance)
            return (
                np.asarray(file["train"]),
                np.asarray(file["test"]),
                known,
                _METRICS.get(distance, distance),
            )
    except (OSError, KeyError) as e:
        raise Unreadable(f"{path} is no HDF5 file of ann-benchmarks, with train and test: {e}") from e


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), np.float32)


def _exact(base: np.ndarray, queries: np.ndarray, metric: str, k: int) -> np.ndarray:
    from vectorlake.kernels import ExactKnn, Metric

    knn = ExactKnn(queries, k=k, metric=Metric(metric))
    knn.add(base, np.arange(len(base)))
    return np.asarray(knn.result()[0])
