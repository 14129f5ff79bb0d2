"""Dimension reduction: PCA over all rows, random projection, Matryoshka truncation, UMAP for plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Unpack

import numpy as np

import vectorlake as vl
from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.jobs import Done, JobRun, Plan, Stage, Task, TaskResult, Work
from vectorlake_jobs._arrays import load, save
from vectorlake_jobs._cluster import kept_in
from vectorlake_jobs._fit import (
    SAMPLE,
    TASK_ROWS,
    FitColumn,
    added_up,
    chosen_column,
    dimension_of,
    one_of,
    positive,
    samples_of,
    share_of,
)
from vectorlake_jobs._models import Model
from vectorlake_jobs._start import RunOptions, start

METHODS: Final = ("pca", "random", "truncate", "umap")
_MOMENTS: Final = "moments"
_MEAN: Final = "mean"
_LAYOUT_ROWS: Final = 10_000
"""Rows that UMAP lays out; the others find their places among them."""
_NEIGHBORS: Final = 15


@dataclass(frozen=True)
class Reduce(FitColumn):
    """A shorter vector for each.

    Attributes:
        method: see `reduce`.
        dimensions: of the new vectors.
        dimension: of the old ones.
        element: of the new ones: `f32` or `f16`.
        metric: of UMAP.
        normalize: truncated vectors are divided by their lengths.
    """

    method: str
    dimensions: int
    dimension: int
    element: str
    metric: str
    normalize: bool

    @property
    def name(self) -> str:
        return "reduce"

    def first(self, tasks: tuple[Task, ...]) -> Stage | None:
        if self.method == "pca":
            return Stage(_MEAN, tasks)
        if self.method == "umap":
            rows = sum(task.rows for task in tasks)
            return Stage(SAMPLE, tasks, {"share": share_of(rows, _LAYOUT_ROWS)})
        return None

    def fit(self, task: Task, work: Work) -> TaskResult:
        if work.stage.name == SAMPLE:
            return self.sampled(task, work, work.stage.shared["share"], self.metric)
        path = f"{work.stage.name}/{task.id}.npz"
        if work.stage.name == _MEAN:
            total, count = np.zeros(self.dimension), 0
            for rows in self.batches(task, work):
                total += rows.sum(axis=0, dtype=np.float64)
                count += len(rows)
            save(work.scratch, path, sums=total, count=np.array(float(count)))
            return TaskResult({"sums": path})
        mean = load(work.scratch, work.stage.shared["mean"])["mean"]
        products = np.zeros((self.dimension, self.dimension))
        for rows in self.batches(task, work):
            centred = rows.astype(np.float64) - mean
            products += centred.T @ centred
        save(work.scratch, path, products=products)
        return TaskResult({"sums": path})

    def fitted(self, done: Done) -> Model | Stage:
        if self.method == "umap":
            return self._laid_out(done)
        total = added_up(done, _MEAN)
        mean = total["sums"] / total["count"]
        if done.stages[-1].stage.name == _MEAN:
            path = save(done.scratch, "mean.npz", mean=mean)
            return Stage(_MOMENTS, done.stages[0].stage.tasks, {"mean": path})
        values, vectors = np.linalg.eigh(added_up(done, _MOMENTS)["products"] / total["count"])
        order = np.argsort(values)[::-1][: self.dimensions]
        components = vectors[:, order].T
        # An eigenvector's sign means nothing: the largest number is made positive, so that runs agree.
        largest = np.abs(components).argmax(axis=1)
        components *= np.sign(components[np.arange(len(components)), largest])[:, None]
        variances = np.maximum(values, 0)
        explained = float(variances[order].sum() / variances.sum()) if variances.any() else 1.0
        arrays = {"mean": mean[None], "components": components, "variances": variances[order][None]}
        return Model("pca", {**self._common, "explained": explained}, arrays)

    def fitted_at_once(self) -> Model:
        if self.method == "truncate":
            return Model("truncate", {**self._common, "normalize": self.normalize})
        rng = np.random.default_rng(self.seed)
        numbers = rng.standard_normal((self.dimensions, self.dimension)) / np.sqrt(self.dimensions)
        return Model("random", self._common, {"components": numbers})

    def report(self, done: Done, model: Model) -> Mapping[str, Any]:
        found = model.settings.get("explained")
        return {} if found is None else {"explained_variance": round(found, 6)}

    @property
    def _common(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "dimensions": self.dimensions, "element": self.element}

    def _laid_out(self, done: Done) -> Model:
        umap = _umap_module()
        sample = samples_of(done, SAMPLE)
        if len(sample) <= self.dimensions + 1:
            raise InvalidInputError(
                f"UMAP needs more than {self.dimensions + 1} rows, but there are {len(sample)}"
            )
        neighbors = min(_NEIGHBORS, len(sample) - 1)
        metric = "cosine" if self.metric == "cosine" else "euclidean"
        layout = umap.UMAP(
            n_neighbors=neighbors,
            n_components=self.dimensions,
            metric=metric,
            random_state=self.seed,
            n_jobs=1,
        ).fit_transform(sample)
        settings = {**self._common, "metric": self.metric, "neighbors": 5}
        return Model("umap", settings, {"sample": sample, "layout": np.asarray(layout, np.float64)})


def _umap_module() -> Any:
    try:
        import umap
    except ImportError as e:
        raise UnsupportedError("method 'umap' needs umap-learn: pip install 'vectorlake[jobs]'") from e
    return umap


def reduce(
    table: vl.Table,
    *,
    dimensions: int,
    method: str = "pca",
    column: str | None = None,
    as_column: str = "reduced",
    element: str = "f32",
    metric: str = "l2",
    normalize: bool = True,
    model: str | None = None,
    lake: vl.Lake | None = None,
    seed: int = 0,
    task_rows: int = TASK_ROWS,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Give each row of a table a shorter vector, in tasks that resume; the table need not fit memory.

    Args:
        table: whose rows; at the version of this handle.
        dimensions: numbers of a new vector.
        method: `"pca"` (exact, over all rows: two passes that add up sums and products in float64), `"random"`
            (Gaussian projection, which keeps distances about as they are: Johnson, Lindenstrauss 1984), `"truncate"`
            (the first numbers, for Matryoshka embeddings: Kusupati et al. 2022), or `"umap"` (for plots: McInnes et al.
            2018; 10,000 sampled rows are laid out, and every row is placed among its nearest five of them).
        column: the vectors; may be left out if there is one column of them.
        as_column: the column of the new vectors; null where there is no vector.
        element: of the new vectors: `"f32"` or `"f16"`.
        metric: of UMAP: `"l2"` or `"cosine"`.
        normalize: truncated vectors get length 1.
        model: creates a table of this name in `lake` that keeps what was fitted, for `apply_model`.
        seed: of what is random.
        task_rows: rows of a task of the fitting.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Returns:
        What was done (PCA tells the share of variance kept), or with `dry_run` the plan.

    Raises:
        InvalidInputError: whatever can't be, such as more dimensions than there are; nothing was written.
        UnsupportedError: a library is missing.
    """
    one_of("method", method, METHODS)
    one_of("metric", metric, ("l2", "cosine"))
    one_of("element", element, ("f32", "f16"))
    named = chosen_column(table, column, as_column)
    dimension = dimension_of(table, named)
    positive("dimensions", dimensions, dimension)
    if method == "umap":
        _umap_module()
    job = Reduce(
        table.ref,
        named,
        as_column,
        kept_in(lake, model),
        seed,
        task_rows,
        method,
        dimensions,
        dimension,
        element,
        metric,
        normalize,
    )
    return start(job, **options)
