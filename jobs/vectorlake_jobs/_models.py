"""Models fitted to vectors (clusters, projections): how each is applied to rows, and kept as a small table of a lake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake_jobs._arrays import Matrix, matrix_of, plain_type, scattered, unit, vectors_of

_CHUNK: Final = 8192
_PROPERTY: Final = "model"
"""The property of a model's table that tells its method and settings, as JSON."""


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes:
        method: `kmeans`, `pca`, `random`, `truncate` or `umap`.
        settings: what else it takes, as JSON: `metric`, `dimensions`, `element`, `dimension`, `normalize`.
        arrays: its numbers, by name, each float64 [rows, columns].
    """

    method: str
    settings: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def output(self) -> pa.DataType:
        """The type of the column that it gives."""
        if self.method == "kmeans":
            return pa.int32()
        return vl.vector(self.settings["dimensions"], self.settings.get("element", "f32"))

    def function(self, column: str) -> Callable[[pa.RecordBatch], pa.Array]:
        """What computes a column of it from batches that hold `column`; null vectors give null.

        Raises:
            InvalidInputError: from the function, if the vectors have another dimension than the model's.
        """
        plain = plain_type(self.output)

        def apply(batch: pa.RecordBatch) -> pa.Array:
            rows, valid = matrix_of(batch.column(column))
            wanted = self.settings["dimension"]
            if rows.shape[1] != wanted:
                raise InvalidInputError(
                    f"the model is of vectors of {wanted} numbers, but column {column!r} holds {rows.shape[1]}"
                )
            found = _METHODS[self.method](self, rows)
            values = pa.array(found, plain) if found.ndim == 1 else vectors_of(found, plain)
            return scattered(values, valid)

        return apply

    def to_arrow(self) -> pa.Table:
        """Its arrays as rows: of which one, the position in it, and the numbers."""
        names: list[str] = []
        positions: list[int] = []
        rows: list[list[float]] = []
        for name, array in sorted(self.arrays.items()):
            names += [name] * len(array)
            positions += range(len(array))
            rows += np.asarray(array, np.float64).tolist()
        columns = [
            pa.array(names, pa.string()),
            pa.array(positions, pa.int64()),
            pa.array(rows, pa.list_(pa.float64())),
        ]
        return pa.table(columns, names=["part", "position", "numbers"])

    @property
    def properties(self) -> dict[str, str]:
        """The properties of its table."""
        return {_PROPERTY: json.dumps({"method": self.method, **self.settings}, sort_keys=True)}

    @classmethod
    def of(cls, table: vl.Table) -> Model:
        """The model that a table holds.

        Raises:
            InvalidInputError: the table holds none, or one of a method that this release doesn't know.
        """
        text = table.properties.get(_PROPERTY)
        if text is None:
            raise InvalidInputError(
                f"table {table.name!r} holds no model: name one that cluster or reduce created (model=)"
            )
        settings = json.loads(text)
        method = settings.pop("method")
        if method not in _METHODS:
            raise InvalidInputError(
                f"table {table.name!r} holds a model of method {method!r}, unknown to this release"
            )
        rows = table.to_arrow()
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name in rows["part"].unique().to_pylist():
            chosen = rows.filter(pa.compute.equal(rows["part"], name)).sort_by("position")
            arrays[name] = np.array(chosen["numbers"].to_pylist(), np.float64)
        return cls(method, settings, arrays)


def nearest(rows: Matrix, centroids: Matrix) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The nearest centroid of each row (squared l2, ties to the lower number) and its distance."""
    places = np.empty(len(rows), np.int32)
    distances = np.empty(len(rows), np.float32)
    lengths = np.einsum("ij,ij->i", centroids, centroids)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        apart = lengths - 2 * (part @ centroids.T)
        here = apart.argmin(axis=1)
        places[start : start + _CHUNK] = here
        own = np.einsum("ij,ij->i", part, part)
        distances[start : start + _CHUNK] = np.maximum(own + apart[np.arange(len(part)), here], 0)
    return places, distances


def _kmeans(model: Model, rows: Matrix) -> npt.NDArray[Any]:
    given = unit(rows) if model.settings["metric"] == "cosine" else rows
    return nearest(given, model.arrays["centroids"].astype(np.float32))[0]


def _project(model: Model, rows: Matrix) -> npt.NDArray[Any]:
    components = model.arrays["components"]
    mean = model.arrays["mean"][0] if "mean" in model.arrays else None
    centred = rows if mean is None else rows - mean
    return np.asarray(centred @ components.T)


def _truncate(model: Model, rows: Matrix) -> npt.NDArray[Any]:
    kept = rows[:, : model.settings["dimensions"]]
    return unit(kept) if model.settings["normalize"] else kept


def _umap(model: Model, rows: Matrix) -> npt.NDArray[Any]:
    """Each row at the mean of its nearest rows of the sample that UMAP has laid out, weighted by 1 / distance."""
    from sklearn.neighbors import NearestNeighbors

    sample, layout = model.arrays["sample"].astype(np.float32), model.arrays["layout"]
    metric = "cosine" if model.settings["metric"] == "cosine" else "euclidean"
    near = NearestNeighbors(n_neighbors=min(int(model.settings["neighbors"]), len(sample)), metric=metric)
    distances, places = near.fit(sample).kneighbors(rows)
    weights = 1 / np.maximum(distances, 1e-9)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkd->nd", weights, layout[places]))


_METHODS: Final[dict[str, Callable[[Model, Matrix], npt.NDArray[Any]]]] = {
    "kmeans": _kmeans,
    "pca": _project,
    "random": _project,
    "truncate": _truncate,
    "umap": _umap,
}
