"""Clustering: k-means over all rows of a table, or mini-batches of them, each pass a stage; the clusters as a column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Unpack

import numpy as np
import numpy.typing as npt

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake.jobs import Done, JobRun, Plan, Stage, StageDone, Task, TaskResult, Work
from vectorlake_jobs._arrays import Matrix, load, save, unit
from vectorlake_jobs._compact import compact
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
from vectorlake_jobs._models import Model, nearest
from vectorlake_jobs._start import RunOptions, start
from vectorlake_jobs._tables import NewTable, pinned

_SAMPLES: Final = 64
"""Sampled rows for each cluster, from which the first centroids come."""
_WARM_UP: Final = 5
"""Passes over the sample before those over the table."""


@dataclass(frozen=True)
class Cluster(FitColumn):
    """k-means (Lloyd 1982), begun with k-means++ (Arthur, Vassilvitskii 2007) on a sample.

    Attributes:
        k: clusters.
        metric: `l2`, or `cosine` for vectors divided by their lengths (spherical k-means).
        iterations: passes, at most.
        tolerance: it ends when no centroid moves by more than this share of the rows' spread.
        batch_share: of the tasks that a pass takes (mini-batches; Sculley 2010); 1 for all.
    """

    k: int
    metric: str
    iterations: int
    tolerance: float
    batch_share: float

    @property
    def name(self) -> str:
        return "cluster"

    def first(self, tasks: tuple[Task, ...]) -> Stage:
        rows = sum(task.rows for task in tasks)
        return Stage(SAMPLE, tasks, {"share": share_of(rows, max(_SAMPLES * self.k, 10_000))})

    def fit(self, task: Task, work: Work) -> TaskResult:
        if work.stage.name == SAMPLE:
            return self.sampled(task, work, work.stage.shared["share"], self.metric)
        centroids = load(work.scratch, work.stage.shared["centroids"])["centroids"]
        sums, counts, spread = np.zeros(centroids.shape), np.zeros(len(centroids)), 0.0
        for rows in self.batches(task, work):
            part = self._given(rows)
            places, distances = nearest(part, centroids)
            order = np.argsort(places, kind="stable")
            filled, starts = np.unique(places[order], return_index=True)
            sums[filled] += np.add.reduceat(part[order].astype(np.float64), starts)
            counts += np.bincount(places, minlength=len(centroids))
            spread += float(distances.sum(dtype=np.float64))
        path = f"{work.stage.name}/{task.id}.npz"
        save(work.scratch, path, sums=sums, counts=counts)
        return TaskResult({"sums": path, "inertia": spread})

    def fitted(self, done: Done) -> Model | Stage:
        turn = len(done.stages) - 1  # passes done
        if turn == 0:
            centroids, moved = self._start(self._given(samples_of(done, SAMPLE))), np.inf
            seen = np.zeros(self.k)
        else:
            stage = done.stages[-1].stage
            before = load(done.scratch, stage.shared["centroids"])["centroids"]
            centroids, moved, seen = self._moved(before, done, stage)
        if turn >= self.iterations or moved <= self.tolerance:
            return self._ended(centroids)
        return self._pass(turn, centroids, seen, done)

    def report(self, done: Done, model: Model) -> Mapping[str, Any]:
        return {"passes": len(done.stages) - 2, "inertia": _inertia(done.stages[-2])}

    def _given(self, rows: Matrix) -> Matrix:
        return unit(rows) if self.metric == "cosine" else rows

    def _start(self, sample: Matrix) -> Matrix:
        from sklearn.cluster import KMeans

        distinct = np.unique(sample, axis=0)
        if len(distinct) < self.k:
            raise InvalidInputError(
                f"k is {self.k}, but only {len(distinct):,} different vectors were found among {len(sample):,} sampled: "
                "take a smaller k"
            )
        warm = KMeans(self.k, n_init=1, max_iter=_WARM_UP, random_state=self.seed).fit(sample)
        return np.asarray(warm.cluster_centers_, np.float32)

    def _moved(
        self, before: Matrix, done: Done, stage: Stage
    ) -> tuple[Matrix, float, npt.NDArray[np.float64]]:
        """The centroids after a pass, how far the farthest went, and the rows that each has seen so far."""
        total = added_up(done, stage.name)
        counts, sums = total["counts"], total["sums"]
        seen = np.array(stage.shared["seen"]) + counts
        filled = counts > 0
        after = before.astype(np.float64)
        means = sums[filled] / counts[filled, None]
        # Of a whole pass the means are the centroids; a mini-batch moves them by its share of what was seen so far.
        share = 1.0 if self.batch_share >= 1 else (counts[filled] / seen[filled])[:, None]
        after[filled] += share * (means - after[filled])
        if self.metric == "cosine":
            after = unit(after.astype(np.float32)).astype(np.float64)
        spread = _inertia(done.stages[-1]) / max(float(counts.sum()), 1)
        farthest = float(((after - before) ** 2).sum(axis=1).max())
        return after.astype(np.float32), farthest / spread if spread else 0.0, seen

    def _pass(self, turn: int, centroids: Matrix, seen: npt.NDArray[np.float64], done: Done) -> Stage:
        tasks = done.stages[0].stage.tasks
        if self.batch_share < 1:
            rng = np.random.default_rng([self.seed, turn, 7])
            wanted = max(1, round(self.batch_share * len(tasks)))
            tasks = tuple(tasks[i] for i in np.sort(rng.choice(len(tasks), wanted, replace=False)))
        path = save(done.scratch, f"centroids-{turn}.npz", centroids=centroids)
        return Stage(f"pass-{turn}", tasks, {"centroids": path, "seen": seen.tolist()})

    def _ended(self, centroids: Matrix) -> Model:
        settings = {"metric": self.metric, "dimension": centroids.shape[1]}
        return Model("kmeans", settings, {"centroids": centroids})


def _inertia(done: StageDone) -> float:
    """The sum of squared distances that a pass has seen."""
    # JSON has no NaN, and numpy takes None for it.
    return float(np.array([value["inertia"] for value in done.values], np.float64).sum())


def cluster(
    table: vl.Table,
    *,
    k: int,
    column: str | None = None,
    as_column: str = "cluster",
    metric: str = "l2",
    iterations: int = 20,
    tolerance: float = 1e-4,
    batch_share: float = 1.0,
    model: str | None = None,
    lake: vl.Lake | None = None,
    seed: int = 0,
    task_rows: int = TASK_ROWS,
    arrange: bool = False,
    target_rows: int | None = None,
    **options: Unpack[RunOptions],
) -> JobRun | Plan:
    """Cluster the rows of a table by k-means, in passes whose tasks resume; the table need not fit memory.

    Args:
        table: whose rows; at the version of this handle.
        k: clusters.
        column: the vectors; may be left out if there is one column of them.
        as_column: the int32 column of the clusters' numbers, from 0; null where there is no vector.
        metric: `"l2"` or `"cosine"`.
        iterations: passes over the table, at most.
        tolerance: stop when no centroid moves farther (squared) than this share of the rows' mean squared distance.
        batch_share: of the table that a pass looks at: below 1, mini-batches.
        model: creates a table of this name in `lake` that keeps the centroids, for `apply_model`.
        seed: the same data and seed give the same clusters.
        task_rows: rows of a task.
        arrange: rewrite the table's rows in the order of their clusters, too, by a job of its own (`<job id>-order`) and a
            second commit, as `compact(sort_by=…)` does; exact searches and filters by cluster then skip what is elsewhere.
        target_rows: rows of a fragment that is written so; as for `Table.compact`.
        options: of the run (`vectorlake.jobs.run_job`), and `dry_run`.

    Returns:
        What was done (its outcome tells the passes and the inertia, the sum of squared distances, of the last one; and how
        many rows were arranged), or with `dry_run` the plan of the clustering.

    Raises:
        InvalidInputError: whatever can't be, such as fewer different vectors than clusters; nothing was written.
    """
    one_of("metric", metric, ("l2", "cosine"))
    positive("k", k)
    positive("iterations", iterations)
    if target_rows is not None:
        positive("target_rows", target_rows)
    if not 0 < batch_share <= 1:
        raise InvalidInputError(f"batch_share must be above 0 and at most 1, not {batch_share!r}")
    named = chosen_column(table, column, as_column)
    dimension_of(table, named)
    place = kept_in(lake, model)
    job = Cluster(
        table.ref, named, as_column, place, seed, task_rows, k, metric, iterations, tolerance, batch_share
    )
    done = start(job, **options)
    if not arrange or isinstance(done, Plan):
        return done
    clustered = pinned(table.ref, int(done.outcome["version"])).open()
    options["job_id"] = f"{done.job_id}-order"
    ordered = compact(clustered, sort_by=as_column, target_rows=target_rows, **options)
    assert isinstance(ordered, JobRun)
    outcome = {
        **done.outcome,
        "version": ordered.outcome["version"],
        "arranged_rows": ordered.outcome["rows"],
    }
    return JobRun(
        done.job_id,
        outcome,
        executed=done.executed + ordered.executed,
        reused=done.reused + ordered.reused,
        failures=(*done.failures, *ordered.failures),
    )


def kept_in(lake: vl.Lake | None, model: str | None) -> NewTable | None:
    """The table that is to keep a model.

    Raises:
        InvalidInputError: no lake to create it in.
    """
    if model is None:
        return None
    if lake is None:
        raise InvalidInputError("say in which lake the model is to be kept: lake=")
    return NewTable.of(lake, model)
