"""Compiled loops of an index over token vectors: residual codes, centroid interaction, and MaxSim of decoded tokens.

After PLAID (Santhanam, Khattab, Potts and Zaharia, CIKM 2022): a token is its nearest centroid and a residual of a few
bits an element. Documents that have a token near one of the query's are scored by their centroids alone; the best of
those by their decoded tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import address_of, pointer_to
from vectorlake.kernels.ivf.select import keep_smallest
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.maxsim_products import PANEL, all_products, best_products


@entry("void(float32[:, ::1], int32[::1], float32[:, ::1], float32[::1], int64, uint8[:, ::1])")
def encode_residuals(tokens: Any, places: Any, centroids: Any, cutoffs: Any, bits: int, codes: Any) -> None:
    """Write the codes of tokens relative to their centroids.

    Args:
        tokens: float32 [t, d].
        places: int32 [t], their centroids.
        centroids: float32 [c, d].
        cutoffs: float32 [2**bits - 1], ascending: an element's code is how many of them it exceeds.
        bits: 1, 2, 4 or 8.
        codes: uint8 [t, ceil(d bits / 8)], the result; an earlier element has lower bits.
    """
    each = 8 // bits
    for token in range(tokens.shape[0]):
        codes[token, :] = 0
        for i in range(tokens.shape[1]):
            residual = tokens[token, i] - centroids[places[token], i]
            code = np.uint8(0)
            for cutoff in cutoffs:
                code += np.uint8(residual > cutoff)
            codes[token, i // each] |= np.uint8(code << np.uint8(bits * (i % each)))


@inner
def _decode(codes: Any, centroid: Any, table: Any, out: Any) -> None:
    """A token from its codes; `table` [256, elements a byte] are the residuals that each byte stands for."""
    each = table.shape[1]
    whole = centroid.shape[0] // each
    for i in range(whole):
        row = table[codes[i]]
        for j in range(each):
            out[i * each + j] = centroid[i * each + j] + row[j]
    for i in range(whole * each, centroid.shape[0]):
        out[i] = centroid[i] + table[codes[whole], i - whole * each]


@inner
def _probe(table: Any, tokens: int, effort: int, chosen: Any, values: Any, places: Any) -> None:
    """Mark in `chosen` the `effort` centroids with the largest products for each token."""
    for token in range(tokens):
        for i in range(effort):
            values[token, i] = np.float32(-np.inf)
    for c in range(table.shape[0]):
        for token in range(tokens):
            value = table[c, token]
            if value <= values[token, 0]:
                continue
            # A heap whose root is the smallest.
            hole = 0
            while True:
                child = 2 * hole + 1
                if child >= effort:
                    break
                if child + 1 < effort and values[token, child + 1] < values[token, child]:
                    child += 1
                if values[token, child] >= value:
                    break
                values[token, hole] = values[token, child]
                places[token, hole] = places[token, child]
                hole = child
            values[token, hole] = value
            places[token, hole] = c
    for token in range(tokens):
        for i in range(effort):
            if values[token, i] > np.float32(-np.inf):
                chosen[places[token, i]] = True


@inner
def _interact(table: Any, places: Any, first: int, end: int, tokens: int, best: Any) -> Any:
    """MaxSim of a document whose tokens are taken for their centroids."""
    width = best.shape[0]
    for i in range(width):
        best[i] = np.float32(-np.inf)
    for token in range(first, end):
        row = table[places[token]]
        for i in range(width):
            best[i] = row[i] if row[i] > best[i] else best[i]
    total = np.float32(0)
    for i in range(tokens):
        total += best[i]
    return total


@entry(
    "void(float32[:, :, ::1], int64[::1], int64[::1], int64, int64, float32[:, ::1], int64, int64, int64, int64, int64, "
    "int64, uint32[::1], int64, int64, int64, int64, int64, int64[:, ::1], float32[:, ::1], int64[:, ::1])"
)
def nominate(  # noqa: C901 - one loop over buffers that are made once
    panels: Any,
    panel_offsets: Any,
    counts: Any,
    clusters: int,
    centroids_at: int,
    decoded: Any,
    places_at: int,
    codes_at: int,
    documents: int,
    offsets_at: int,
    list_offsets_at: int,
    lists_at: int,
    allowed: Any,
    effort: int,
    most: int,
    pool: int,
    first: int,
    end: int,
    slots: Any,
    scores: Any,
    looked: Any,
) -> None:
    """Find the documents with the highest estimated MaxSim for queries [first, end).

    Args:
        panels: float32 [p, d, PANEL], tokens of all queries, each query's in panels of its own.
        panel_offsets: int64 [n + 1], where each query's begin.
        counts: int64 [n], how many tokens it has.
        clusters: how many centroids there are.
        centroids_at: address of float32 [c, d]. What is mapped from files is read-only, and comes by address.
        decoded: float32 [256, elements a byte], the residuals that a byte of a code stands for.
        places_at: address of int32 [t], each token's centroid.
        codes_at: address of uint8 [t, bytes].
        documents: how many there are.
        offsets_at: address of int64 [m + 1], where each document's tokens begin.
        list_offsets_at: address of int64 [c + 1], where each centroid's documents begin in the lists.
        lists_at: address of int32, documents with a token of that centroid.
        allowed: uint32 [ceil(m / 32)], which documents may be found.
        effort: centroids probed for each token.
        most: documents that are scored by their codes, at least `pool`.
        pool: documents wanted.
        first: the first query.
        end: one past the last.
        slots: int64 [n, pool], the result; it holds -1.
        scores: float32 [n, pool], their estimated MaxSim.
        looked: int64 [n, 2], how many centroids were probed, and documents scored.
    """
    dimension = panels.shape[1]
    offsets = carray(pointer_to(offsets_at, np.int64(0)), (documents + 1,))
    tokens_held = offsets[documents]
    centroids = carray(pointer_to(centroids_at, np.float32(0)), (clusters, dimension))
    places = carray(pointer_to(places_at, np.int32(0)), (tokens_held,))
    each = decoded.shape[1]
    codes = carray(pointer_to(codes_at, np.uint8(0)), (tokens_held, (dimension + each - 1) // each))
    list_offsets = carray(pointer_to(list_offsets_at, np.int64(0)), (clusters + 1,))
    lists = carray(pointer_to(lists_at, np.int32(0)), (list_offsets[clusters],))
    effort = min(effort, clusters)
    longest = 1
    for document in range(documents):
        longest = max(longest, offsets[document + 1] - offsets[document])
    tokens_of = np.empty((longest, dimension), np.float32)
    chosen = np.empty(clusters, np.bool_)
    seen = np.full(documents, -1, np.int64)
    found = np.empty(documents, np.int64)
    distances = np.empty(documents, np.float32)  # MaxSim negated
    for q in range(first, end):
        tokens = counts[q]
        if tokens == 0:
            continue
        mine = panel_offsets[q + 1] - panel_offsets[q]
        width = mine * PANEL
        table = np.empty((clusters, width), np.float32)
        work = np.empty((mine, dimension + 1, PANEL), np.float32)
        for p in range(mine):
            for i in range(dimension):
                for j in range(PANEL):
                    work[p, i, j] = panels[panel_offsets[q] + p, i, j]
            all_products(
                address_of(work[p]),
                address_of(centroids),
                np.int64(4 * dimension),
                np.int64(clusters),
                np.int64(dimension),
                address_of(table) + 4 * PANEL * p,
                np.int64(4 * width),
            )
        for c in range(clusters):
            chosen[c] = effort >= clusters
        if effort < clusters:
            nearest = np.empty((tokens, effort), np.float32)
            which = np.empty((tokens, effort), np.int64)
            _probe(table, tokens, effort, chosen, nearest, which)
        count = 0
        for c in range(clusters):
            if not chosen[c]:
                continue
            looked[q, 0] += 1
            for i in range(list_offsets[c], list_offsets[c + 1]):
                document = int(lists[i])
                if seen[document] != q:
                    seen[document] = q
                    if (allowed[document >> 5] >> np.uint32(document & 31)) & np.uint32(1):
                        found[count] = document
                        count += 1
        looked[q, 1] = count
        best = np.empty(width, np.float32)
        for i in range(count):
            document = found[i]
            distances[i] = -_interact(table, places, offsets[document], offsets[document + 1], tokens, best)
        if count > most:
            count, _ = keep_smallest(distances, found, count, most, 0)
        for i in range(count):
            start = offsets[found[i]]
            held = offsets[found[i] + 1] - start
            for j in range(held):
                _decode(codes[start + j], centroids[places[start + j]], decoded, tokens_of[j])
            total: Any = np.float32(0)
            for p in range(mine):
                best_products(
                    address_of(work[p]),
                    address_of(tokens_of),
                    np.int64(4 * dimension),
                    np.int64(held),
                    np.int64(dimension),
                )
                for j in range(min(PANEL, tokens - p * PANEL)):
                    total += work[p, dimension, j]
            distances[i] = -total
        if count > pool:
            count, _ = keep_smallest(distances, found, count, pool, 0)
        for i in range(count):
            slots[q, i] = found[i]
            scores[q, i] = -distances[i]
