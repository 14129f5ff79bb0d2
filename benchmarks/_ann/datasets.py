"""Read a data set: an ann-benchmarks HDF5 file, or a folder of `.npy` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from _ann.protocol import Data, Skip

TRUTH = 100
"""How many true neighbours are computed where a set does not bring them."""
_METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "dot", "ip": "dot", "hamming": "hamming"}


SYNTHETIC = "synthetic"


def read(where: str, *, rows: int | None, metric: str | None) -> Data:
    """Read a set, cut to its first `rows`; ground truth is computed exactly where the file's does not hold.

    Args:
        where: "synthetic" for clustered random vectors, a file `….hdf5` with `train`, `test`, `neighbors` and the attribute `distance`, or a folder with `vectors.npy`,
            `query_vectors.npy` and perhaps `neighbors.npy`.
        rows: None for all.
        metric: None for the file's own; folders are read as cosine.
    """
    path = Path(where)
    if where == SYNTHETIC:
        base, queries, neighbors, own = _synthetic()
    else:
        base, queries, neighbors, own = _hdf5(path) if path.is_file() else _folder(path)
    element = str(base.dtype)
    metric = metric or own
    if metric not in ("l2", "cosine", "dot"):
        raise Skip(f"{path} has metric {metric!r}; only l2, cosine and dot are compared")
    cut = rows is not None and rows < len(base)
    base = np.ascontiguousarray(base[:rows], np.float32)
    queries = np.ascontiguousarray(queries, np.float32)
    if metric == "cosine":
        base, queries = _unit(base), _unit(queries)
    if neighbors is None or cut or metric != own:
        neighbors = _exact(base, queries, metric)
    return Data(f"{path.stem}-{len(base)}", base, queries, neighbors, metric, element)


def _synthetic() -> tuple[np.ndarray, np.ndarray, None, str]:
    """30,000 vectors of 128 dimensions about 300 centres."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(300, 128))
    every = centres[rng.integers(0, 300, 30_500)] + 0.7 * rng.normal(size=(30_500, 128))
    return every[500:].astype(np.float16), every[:500].astype(np.float32), None, "cosine"


def _folder(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    if not (path / "vectors.npy").exists():
        raise Skip(
            f"{path} has no vectors.npy; name a folder that has one, or an ann-benchmarks HDF5 file, by --data"
        )
    known = path / "neighbors.npy"
    return (
        np.load(path / "vectors.npy"),
        np.load(path / "query_vectors.npy"),
        np.load(known) if known.exists() else None,
        "cosine",
    )


def _hdf5(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    try:
        import h5py
    except ImportError as e:
        raise Skip("reading HDF5 files takes h5py (pip install 'vectorlake[bench]')") from e
    with h5py.File(path) as file:
        known = np.asarray(file["neighbors"]) if "neighbors" in file else None
        distance = str(file.attrs.get("distance", "euclidean"))
        return np.asarray(file["train"]), np.asarray(file["test"]), known, _METRICS.get(distance, distance)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), np.float32)


def _exact(base: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    from vectorlake.kernels import ExactKnn, Metric

    knn = ExactKnn(queries, k=min(TRUTH, len(base)), metric=Metric(metric))
    knn.add(base, np.arange(len(base)))
    return np.asarray(knn.result()[0])
