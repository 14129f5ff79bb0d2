"""Compiled loops of MaxSim: widen token vectors, keep the best product of each query token, measure chosen documents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import METRIC_COSINE, address_of, as_floats, pointer_to
from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.lanes import sum_product, sum_square
from vectorlake.kernels.maxsim_products import PANEL, best_products
from vectorlake.kernels.rows import FLOAT64


@inner
def _all_finite(source: int, dimension: int) -> bool:
    doubles = carray(pointer_to(source, np.float64(0)), (dimension,))
    for i in range(dimension):  # noqa: SIM110
        if not abs(doubles[i]) < np.inf:
            return False
    return True


@entry("void(int64, int64, int64, int64, int64, int64, int64, bool_[::1], float64[::1])")
def survey(
    metric: int,
    code: int,
    address: int,
    stride: int,
    dimension: int,
    first: int,
    end: int,
    usable: Any,
    norms: Any,
) -> None:
    """Write the norms of tokens [first, end), and clear `usable` of those that never match."""
    buffer = np.empty(dimension, np.float32)
    for token in range(first, end):
        source, single = as_floats(code, address + token * stride, dimension, buffer)
        square = sum_square(source, source, dimension, single)
        norms[token] = np.sqrt(square)
        if metric == METRIC_COSINE:
            usable[token] = usable[token] and square > 0.0 and square < np.inf
        elif not square < np.inf:
            usable[token] = usable[token] and code == FLOAT64 and _all_finite(source, dimension)


@entry("void(int64, int64, int64, int64[::1], float64[::1], int64, int64, float32[:, ::1])")
def widen_tokens(
    code: int, address: int, stride: int, tokens: Any, factors: Any, first: int, end: int, out: Any
) -> None:
    """Write tokens number `tokens[i]`, times `factors[i]`, into `out[i]` for i in [first, end)."""
    dimension = out.shape[1]
    buffer = np.empty(dimension, np.float32)
    for i in range(first, end):
        source, single = as_floats(code, address + tokens[i] * stride, dimension, buffer)
        factor = factors[i]
        row = out[i]
        if single:
            singles = carray(pointer_to(source, np.float32(0)), (dimension,))
            rounded = np.float32(factor)
            for j in range(dimension):
                row[j] = singles[j] * rounded
        else:
            doubles = carray(pointer_to(source, np.float64(0)), (dimension,))
            for j in range(dimension):
                row[j] = np.float32(doubles[j] * factor)


@entry("void(float32[:, :, ::1], int64[::1], float32[:, ::1], int64[::1], int64, int64, float32[:, :])")
def estimate(
    panels: Any, query_offsets: Any, tokens: Any, offsets: Any, first: int, end: int, scores: Any
) -> None:
    """Estimate MaxSim of a group of queries with documents [first, end).

    Args:
        panels: float32 [p, d, PANEL], the group's tokens; those that are missing are zero.
        query_offsets: int64 [g + 1], where each query's tokens begin in the group.
        tokens: float32 [t, d], documents' tokens.
        offsets: int64 [m + 1], where each document's begin; none is empty.
        first: the first document.
        end: one past the last.
        scores: float32 [g, m], the result.
    """
    dimension = tokens.shape[1]
    count = panels.shape[0]
    work = np.empty((count, dimension + 1, PANEL), np.float32)
    for p in range(count):
        for j in range(dimension):
            for i in range(PANEL):
                work[p, j, i] = panels[p, j, i]
    for document in range(first, end):
        start = offsets[document]
        for p in range(count):
            best_products(
                address_of(work[p]),
                address_of(tokens[start]),
                np.int64(4 * dimension),
                offsets[document + 1] - start,
                np.int64(dimension),
            )
        for q in range(query_offsets.shape[0] - 1):
            total = 0.0
            for token in range(query_offsets[q], query_offsets[q + 1]):
                total += np.float64(work[token // PANEL, dimension, token % PANEL])
            scores[q, document] = np.float32(total)


@inner
def _maxsim(
    metric: int,
    queries: Any,
    norms: Any,
    code: int,
    address: int,
    stride: int,
    first: int,
    end: int,
    usable: Any,
    token_norms: Any,
    best: Any,
    buffer: Any,
) -> float:
    """Minus MaxSim of one query (its tokens, float64 [t, d]) with tokens [first, end); infinity where there is none."""
    count, dimension = queries.shape
    for i in range(count):
        best[i] = -np.inf
    for token in range(first, end):
        if not usable[token]:
            continue
        source, single = as_floats(code, address + token * stride, dimension, buffer)
        for i in range(count):
            value = sum_product(address_of(queries[i]), source, dimension, single)
            if metric == METRIC_COSINE:
                both = norms[i] * token_norms[token]
                value = min(max(value / both, -1.0), 1.0) if both > 0.0 and both < np.inf else np.nan
            if value > best[i] and value < np.inf:
                best[i] = value
    total = 0.0
    for i in range(count):
        total += best[i]
    return -total if abs(total) < np.inf else np.inf


@entry(
    "void(int64, float64[:, ::1], float64[::1], int64[::1], int64, int64, int64, int64[::1], bool_[::1], "
    "float64[::1], int64[::1], int64[::1], int64[::1], int64, int64, float64[:, ::1], int64[:, ::1])"
)
def measure(
    metric: int,
    queries: Any,
    norms: Any,
    query_offsets: Any,
    code: int,
    address: int,
    stride: int,
    offsets: Any,
    usable: Any,
    token_norms: Any,
    row_ids: Any,
    starts: Any,
    documents: Any,
    first: int,
    end: int,
    heap_distances: Any,
    heap_ids: Any,
) -> None:
    """Measure chosen documents for queries [first, end), and offer them to their heaps.

    Args:
        metric: one of `distance`'s constants.
        queries: float64 [t, d], all queries' tokens.
        norms: float64 [t], their norms.
        query_offsets: int64 [n + 1].
        code: element type of the documents' tokens as stored.
        address: where the first token stands.
        stride: bytes from token to token.
        offsets: int64 [m + 1], where each document's tokens begin.
        usable: bool [tokens], see `survey`.
        token_norms: float64 [tokens].
        row_ids: int64 [m].
        starts: int64 [n + 1], where each query's documents begin in `documents`.
        documents: which are measured.
        first: the first query.
        end: one past the last.
        heap_distances: float64 [n, k].
        heap_ids: int64 [n, k].
    """
    buffer = np.empty(queries.shape[1], np.float32)
    for q in range(first, end):
        asked = queries[query_offsets[q] : query_offsets[q + 1]]
        lengths = norms[query_offsets[q] : query_offsets[q + 1]]
        best = np.empty(asked.shape[0])
        for i in range(starts[q], starts[q + 1]):
            document = documents[i]
            value = _maxsim(
                metric,
                asked,
                lengths,
                code,
                address,
                stride,
                offsets[document],
                offsets[document + 1],
                usable,
                token_norms,
                best,
                buffer,
            )
            if value < np.inf:
                offer(heap_distances[q], heap_ids[q], value, row_ids[document])
