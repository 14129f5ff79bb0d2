"""What is asked of a search beside its queries, checked against one snapshot: settled once for equal arguments, and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final, TypeAlias

from vectorlake.errors import InvalidInputError
from vectorlake.expr import Expr
from vectorlake.kernels import Metric
from vectorlake.schema import Field, did_you_mean, is_multivector, listing
from vectorlake.search.choice import Effortful, Mode, Target, as_mode, choose_target, positive
from vectorlake.search.depth import Extent, Grouping
from vectorlake.search.plan import Wish
from vectorlake.search.queries import refuse_metric
from vectorlake.search.selection import Selection, as_row_ids
from vectorlake.table.view import View


@dataclass(frozen=True)
class Options:
    """What `Table.knn` takes besides queries; each is told there."""

    column: str | None = None
    k: int | None = 10
    metric: str | Metric | None = None
    filter: str | Expr | object | None = None
    columns: Sequence[str] = ()
    mode: str | Mode | None = None
    index: str | None = None
    effort: Effortful = field(default_factory=Effortful)
    max_distance: float | None = None
    offset: int | None = None
    include: Any = None
    exclude: Any = None
    group_by: str | None = None
    group_size: int = 1
    threads: int | None = None
    device: str | None = None


def options_of(
    *,
    nprobe: int | None = None,
    ef: int | None = None,
    target_recall: float | None = None,
    pool: int | None = None,
    **others: Any,
) -> Options:
    """Options from the keyword arguments of `Table.knn`.

    Raises:
        InvalidInputError: an unknown one.
    """
    known = set(Options.__dataclass_fields__) - {"effort"}
    for name in others:
        if name not in known:
            names = sorted(known)
            raise InvalidInputError(
                f"unknown option {name!r}{did_you_mean(name, names)}; choose from {listing(names)}"
            )
    return Options(**others, effort=Effortful(nprobe, ef, target_recall, pool))


@dataclass(frozen=True)
class Request:
    """What a search is to find, and by what. Immutable, and good for any queries.

    Attributes:
        target: the column, the metric, and the index if there is one to use.
        extent: which of the nearest rows.
        wanted: further columns of them.
        selection: which rows may be found.
        wish: how much of the index to look at; nothing without one.
        threads: how many may work; None for as many as fit.
        device: of an exact search.
    """

    target: Target
    extent: Extent
    wanted: list[Field]
    selection: Selection
    wish: Wish
    threads: int | None
    device: str | None


def request(view: View, options: Options) -> Request:
    """Check what was asked, or find it checked for this snapshot.

    Raises:
        InvalidInputError: arguments that are wrong, or don't go together.
        NotFoundError: an unknown column or index.
    """
    key = _key(options)
    if key is None:
        return _request(view, options)
    return view.requests.get(key, lambda: _request(view, options))


_SAFE: Final = frozenset({type(None), str, int, float, Metric, Mode})
"""Types of arguments that stay as they are, and are equal only where a search is the same."""
_EFFORT: Final = attrgetter(*(one.name for one in fields(Effortful)))
_VALUES: Final = attrgetter(*(one.name for one in fields(Options) if one.name not in ("columns", "effort")))
_Key: TypeAlias = tuple[object, ...]


def _key(options: Options) -> _Key | None:
    """What tells options from all others, types included (1 equals True and 1.0, of which one is refused); None where
    nothing hashable does."""
    columns = options.columns
    if type(columns) not in (tuple, list):
        return None
    values: _Key = (*_VALUES(options), *_EFFORT(options.effort), *columns)
    kinds = tuple(map(type, values))
    return (values, kinds) if _SAFE.issuperset(kinds) else None


def _request(view: View, options: Options) -> Request:
    extent = _extent(view, options)
    mode = as_mode(options.mode, asked=options.effort.given or options.index is not None)
    target = choose_target(
        view.snapshot, column=options.column, metric=options.metric, index=options.index, mode=mode
    )
    refuse_metric(target.metric, target.field)
    wanted = view.select(list(options.columns)) if options.columns else []
    selection = Selection(
        None if options.filter is None else view.bind(options.filter),
        as_row_ids("include", options.include),
        as_row_ids("exclude", options.exclude),
    )
    if options.device is not None and (
        target.index is not None or target.metric is Metric.HAMMING or is_multivector(target.field.type)
    ):
        raise InvalidInputError(
            f"device={options.device!r} is for exact searches by {Metric.L2}, {Metric.COSINE} or {Metric.DOT} of columns "
            "with one vector a row: leave it out"
        )
    wish = Wish() if target.index is None else options.effort.wish(target.index)
    return Request(target, extent, wanted, selection, wish, options.threads, options.device)


def _extent(view: View, options: Options) -> Extent:
    k = None if options.k is None else positive("k", options.k)
    offset = None if options.offset is None else positive("offset", options.offset, 0)
    if options.threads is not None:
        positive("threads", options.threads)
    most = options.max_distance
    if most is not None and (isinstance(most, bool) or math.isnan(most)):
        raise InvalidInputError(f"max_distance must be a number, not {most!r}")
    if k is None and most is None:
        raise InvalidInputError("k=None finds all rows within a distance: give max_distance")
    group = None
    if options.group_by is not None:
        (column,) = view.select([options.group_by])
        group = Grouping(column, positive("group_size", options.group_size))
    elif options.group_size != 1:
        raise InvalidInputError("group_size says how many rows of each group: give group_by, the column")
    # More neighbours than rows can't be found: a huge k must not reserve memory for them.
    if k is not None:
        k = min(k, max(view.snapshot.num_rows, 1))
    return Extent(k, offset, None if most is None else float(most), group)
