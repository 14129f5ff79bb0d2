"""Compiled rounding of queries: move them into product space, turn them, round their heads, and bound what that loses."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectorlake.kernels.distance import METRIC_COSINE, METRIC_DOT
from vectorlake.kernels.jit import entry, inner, relaxed
from vectorlake.kernels.quantize import (
    ERROR,
    KIND,
    KIND_BOUNDED,
    KIND_DEAD,
    KIND_WILD,
    NORM,
    OFFSET,
    SCALE,
    SLACK,
    SQUARE,
    TAIL,
    WILD_QUERY,
)

_SMALL = 1 / WILD_QUERY


@entry(
    "void(int64, float64[:, ::1], float64[::1], int64, float64[::1], float32[:, ::1], float64, int64, int64, int64, "
    "int8[:, ::1], float32[:, ::1], float64[:, ::1])"
)
def encode_queries(
    metric: int,
    moved: Any,
    norms: Any,
    first: int,
    middle: Any,
    rotation: Any,
    drift: float,
    levels: int,
    stretch: int,
    most: int,
    integers: Any,
    floats: Any,
    facts: Any,
) -> None:
    """Round some queries; all sums are float64, so that any order of them keeps to what `quantize` allows for.

    Args:
        metric: one of `distance`'s constants.
        moved: float64 [g, d], the queries as given; moved into product space.
        norms: float64 [g], theirs as given.
        first: the place of the first of them in what is written.
        middle: float64 [d], the frame's centre (see `quantize.Frame`).
        rotation: float32 [p, d], the frame's, or [0, d].
        drift: of the rotation.
        levels: elements become integers in -levels..levels; 0 leaves floats in -1..1.
        stretch: elements of a stretch (see `fused`); 0 where they are not summed by stretches.
        most: what the magnitudes of the integers of a lane of a stretch may sum to.
        integers: int8 [n, padded], written where `levels` says so.
        floats: float32 [n, padded], written where it does not.
        facts: float64 [n, FACTS], written.
    """
    dimension = middle.shape[0]
    kept = rotation.shape[0] if rotation.shape[0] > 0 else dimension
    tiny = (dimension + 64) * 2.0**-51
    least = np.sqrt(np.float64(dimension)) * 1e-139
    head = np.empty(kept, np.float64)
    lost = np.empty(kept, np.float64)
    for g in range(moved.shape[0]):
        q = first + g
        query = moved[g]
        kind = _move(metric, query, norms[g], middle)
        square = _square(query)
        length = np.sqrt(square)
        off = tiny
        tail = 0.0
        if rotation.shape[0] > 0:
            for i in range(kept):
                head[i] = _product(query, rotation, i)
            off = np.sqrt(np.float64(kept)) * tiny + 1.01 * drift
            sure = max(np.sqrt(_square(head)) * (1 - tiny) - off * length, 0.0)
            beyond = np.sqrt(max((length * (1 + tiny)) ** 2 - sure * sure, 0.0))
            tail = beyond * (1 + tiny) + tiny + least
        else:
            for i in range(kept):
                head[i] = query[i]
        largest = 0.0
        for i in range(kept):
            largest = max(largest, abs(head[i]))
        # Too small to divide by: leave nothing to the integers, and everything to the error.
        scale = 0.0
        if largest > _SMALL:
            scale = largest / max(levels, 1)
            if stretch > 0:
                # Rounding adds a half at most to each of the elements.
                scale = max(scale, _most_in_a_lane(head, stretch) / (most - stretch // 4 - 1))
        _round(head, scale, levels, lost, integers[q], floats[q])
        facts[q, SCALE] = scale
        facts[q, NORM] = np.sqrt(_square(head)) * (1 + tiny)
        facts[q, ERROR] = np.sqrt(_square(lost)) * (1 + tiny) + off * length + least
        if metric == METRIC_COSINE:
            facts[q, ERROR] += tiny
        facts[q, SQUARE] = square
        facts[q, OFFSET] = 0.0
        facts[q, SLACK] = 0.0
        if metric == METRIC_DOT:
            for i in range(dimension):
                facts[q, OFFSET] += query[i] * middle[i]
            facts[q, SLACK] = np.sqrt(_square(middle))
        facts[q, KIND] = kind
        facts[q, TAIL] = tail


@relaxed
def _product(query: Any, rotation: Any, i: int) -> Any:
    """With direction i."""
    total = 0.0
    for j in range(query.shape[0]):
        total += query[j] * np.float64(rotation[i, j])
    return total


@relaxed
def _square(values: Any) -> Any:
    total = 0.0
    for value in values:
        total += value * value
    return total


@inner
def _move(metric: int, query: Any, length: float, middle: Any) -> Any:
    """Move a query into product space, or to zero where it has no place there; returns its kind."""
    kind = KIND_BOUNDED if length < WILD_QUERY else KIND_WILD
    if metric == METRIC_COSINE and length < _SMALL:
        kind = KIND_DEAD if length == 0 else KIND_WILD
    if kind != KIND_BOUNDED:
        for i in range(query.shape[0]):
            query[i] = 0.0
    elif metric == METRIC_COSINE:
        for i in range(query.shape[0]):
            query[i] = query[i] / length - middle[i]
    elif metric != METRIC_DOT:
        for i in range(query.shape[0]):
            query[i] -= middle[i]
    return kind


@inner
def _most_in_a_lane(head: Any, stretch: int) -> Any:
    """The most that magnitudes sum to in a lane: every other two elements of a stretch."""
    most = 0.0
    for start in range(0, head.shape[0], stretch):
        one, other = 0.0, 0.0
        for i in range(start, min(start + stretch, head.shape[0])):
            if i & 2:
                other += abs(head[i])
            else:
                one += abs(head[i])
        most = max(most, max(one, other))
    return most


@inner
def _round(head: Any, scale: float, levels: int, lost: Any, integers: Any, floats: Any) -> None:
    """Write the integers or floats that stand for a head, put what they stand for in its place, and tell what is lost."""
    if scale == 0:
        for i in range(head.shape[0]):
            lost[i] = head[i]
            head[i] = 0.0
        return
    for i in range(head.shape[0]):
        ratio = head[i] / scale
        if levels > 0:
            ratio = np.rint(ratio)
            integers[i] = np.int8(ratio)
        else:
            single = np.float32(ratio)
            floats[i] = single
            ratio = np.float64(single)
        known = scale * ratio
        lost[i] = head[i] - known
        head[i] = known
