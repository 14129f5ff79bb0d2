"""Which index a search uses, if any: the one that is named, or the one that fits."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vectorlake.errors import InvalidInputError, NotFoundError
from vectorlake.kernels import Metric
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.schema import Field, did_you_mean, is_multivector, listing
from vectorlake.search.plan import Wish
from vectorlake.search.queries import vector_column

GRAPH: Final = "graph"


class Mode(enum.StrEnum):
    """How a search looks for the nearest rows.

    `EXACT` measures all, `INDEX` uses an index and fails without one, `AUTO` uses one if one fits.
    """

    EXACT = "exact"
    INDEX = "index"
    AUTO = "auto"


@dataclass(frozen=True)
class Effortful:
    """How much to look at, as callers say it.

    Attributes:
        nprobe: partitions of an IVF index.
        ef: rows of a graph index to visit, in the mean.
        target_recall: recall@k to aim at, in (0, 1].
        pool: rows to measure exactly for each query.
    """

    nprobe: int | None = None
    ef: int | None = None
    target_recall: float | None = None
    pool: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("nprobe", self.nprobe), ("ef", self.ef), ("pool", self.pool)):
            if value is not None:
                positive(name, value)
        recall = self.target_recall
        if recall is not None and (isinstance(recall, bool) or not 0 < recall <= 1):
            raise InvalidInputError(f"target_recall must lie above 0 and be at most 1, not {recall!r}")
        if self.nprobe is not None and self.ef is not None:
            raise InvalidInputError("give nprobe (IVF) or ef (graph), not both")
        if recall is not None and (self.nprobe is not None or self.ef is not None):
            raise InvalidInputError(
                "give target_recall, or say how much to look at by nprobe or ef, not both"
            )

    @property
    def given(self) -> bool:
        """Whether anything was said, so that an index is wanted."""
        return not self.nprobe is self.ef is self.target_recall is self.pool is None

    def wish(self, index: Index) -> Wish:
        """What it means for an index.

        Raises:
            InvalidInputError: nprobe for a graph, or ef for another kind.
        """
        graph = index.kind == GRAPH
        if self.nprobe is not None and graph:
            raise InvalidInputError(
                f"index {index.name!r} is a graph and has no partitions: give ef= instead of nprobe="
            )
        if self.ef is not None and not graph:
            raise InvalidInputError(
                f"index {index.name!r} of kind {index.kind!r} is no graph: give nprobe= instead of ef="
            )
        effort = self.ef if graph else self.nprobe
        return Wish(effort, self.pool, self.target_recall)


@dataclass(frozen=True)
class Target:
    """What is searched: a column by a metric, with an index or without."""

    field: Field
    metric: Metric
    index: Index | None


def as_mode(mode: str | Mode | None, *, asked: bool) -> Mode:
    """The mode of that name; without one exact, or by index if anything about one was said.

    Raises:
        InvalidInputError: an unknown mode, or the exact one though something was said about an index.
    """
    if mode is None:
        return Mode.INDEX if asked else Mode.EXACT
    try:
        parsed = Mode(mode)
    except ValueError as e:
        raise InvalidInputError(f"mode must be 'exact', 'index' or 'auto', not {mode!r}") from e
    if parsed is Mode.EXACT and asked:
        raise InvalidInputError(
            "mode='exact' uses no index: leave out index, nprobe, ef, target_recall and pool"
        )
    return parsed


def choose_target(
    snapshot: Snapshot, *, column: str | None, metric: str | Metric | None, index: str | None, mode: Mode
) -> Target:
    """Settle column, metric and index. Without a metric it is the index's, else `l2` (`dot` for multivectors).

    Raises:
        InvalidInputError: an index of another column or metric; no index where one is needed.
        NotFoundError: no such column or index.
    """
    measure = Metric.parse(metric) if isinstance(metric, str) else metric
    if index is not None:
        named = index_named(snapshot, index)
        field = next((f for f in snapshot.schema.fields if f.id == named.field_id), None)
        if field is None:
            raise InvalidInputError(f"the column of index {index!r} was dropped: drop the index too")
        if column is not None and snapshot.schema.field(column).id != field.id:
            raise InvalidInputError(f"index {index!r} is on column {field.name!r}, not on {column!r}")
        _check_metric(named, measure)
        return Target(field, Metric(named.metric), named)
    field = vector_column(snapshot.schema, column)
    if mode is Mode.EXACT:
        return Target(field, measure or _usual_metric(field), None)
    there = [one for one in snapshot.indexes if one.field_id == field.id]
    fitting = [one for one in there if measure is None or one.metric == measure]
    if fitting:
        chosen = fitting[-1]
        return Target(field, Metric(chosen.metric), chosen)
    if mode is Mode.AUTO:
        return Target(field, measure or _usual_metric(field), None)
    if there:
        _check_metric(there[-1], measure)
    raise InvalidInputError(
        f"column {field.name!r} has no index: make one with create_index({field.name!r}), or use mode='exact'"
    )


def index_named(snapshot: Snapshot, name: str) -> Index:
    """An index of a snapshot by name.

    Raises:
        NotFoundError: there is none; names those that there are.
    """
    found = next((one for one in snapshot.indexes if one.name == name), None)
    if found is None:
        names = [one.name for one in snapshot.indexes]
        has = f"its indexes are {listing(names)}" if names else "it has none: make one with create_index()"
        raise NotFoundError(
            f"version {snapshot.version} of the table has no index {name!r}{did_you_mean(name, names)}; {has}"
        )
    return found


def _usual_metric(field: Field) -> Metric:
    """What is meant where no metric is given and no index tells one."""
    return Metric.DOT if is_multivector(field.type) else Metric.L2


def _check_metric(index: Index, metric: Metric | None) -> None:
    if metric is not None and index.metric != metric:
        raise InvalidInputError(
            f"index {index.name!r} is for metric {index.metric!r}, not {str(metric)!r}: leave the metric out, make an "
            f"index with metric={str(metric)!r}, or use mode='exact'"
        )


def positive(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least so much.

    Raises:
        InvalidInputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidInputError(f"{name} must be an integer of at least {least}, not {value!r}")
    return int(value)
