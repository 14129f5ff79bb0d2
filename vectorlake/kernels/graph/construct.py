"""Compiled steps of building a graph: records of vectors, nearest in a leaf, pruning, codes of edges."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import METRIC_DOT, address_of, pointer_to
from vectorlake.kernels.graph.lanes import positive_bits, product, products_of_four
from vectorlake.kernels.graph.record import DEGREE, UNUSABLE
from vectorlake.kernels.jit import entry, inner, relaxed

_TWO = np.float32(2)
GROUP: Final = 4
"""Rows of a leaf that are compared with another at a time."""


@entry("void(float32[:, ::1], bool_[::1], int64, int64, int64, int64)")
def store_rows(rotated: Any, usable: Any, first: int, end: int, records: int, stride: int) -> None:
    """Round rows [first, end) to bytes: vector and facts, `stride` bytes apart."""
    padded = rotated.shape[1]
    for row in range(first, end):
        at = records + row * stride
        vector = carray(pointer_to(at, np.int8(0)), (padded,))
        facts = carray(pointer_to(at + padded, np.float32(0)), (3,))
        if not usable[row]:
            facts[1] = np.float32(UNUSABLE)
            carray(pointer_to(at + padded + 12, np.int32(0)), (1,))[0] = -1
            continue
        largest = np.float32(0)
        square = 0.0
        for i in range(padded):
            largest = max(largest, abs(rotated[row, i]))
            square += np.float64(rotated[row, i]) * np.float64(rotated[row, i])
        inverse = np.float32(127) / largest if largest > 0 else np.float32(0)
        for i in range(padded):
            vector[i] = np.int8(np.rint(rotated[row, i] * inverse))
        facts[0] = largest / np.float32(127)
        facts[1] = np.float32(square)
        facts[2] = np.float32(0)
        carray(pointer_to(at + padded + 12, np.int32(0)), (1,))[0] = -1


@entry("void(int64, int64, int64, int64, int64, int64[::1])")
def digest_rows(records: int, stride: int, padded: int, first: int, end: int, digests: Any) -> None:
    """Hash the stored vectors, so that equal ones are found; a collision does no harm."""
    root = 4 * padded + 12 * DEGREE
    for row in range(first, end):
        words = carray(pointer_to(records + row * stride + root, np.int64(0)), (padded // 8 + 1,))
        value = np.int64(0x2545F4914F6CDD1D)
        for i in range(words.shape[0]):
            value = (value ^ words[i]) * np.int64(0x5851F42D4C957F2D)
            value ^= (value >> 29) & np.int64(0x7FFFFFFFF)
        digests[row] = value


@inner
def between(records: int, stride: int, padded: int, left: int, right: int) -> Any:
    """Squared distance of two stored vectors, their heights included."""
    root = 4 * padded + 12 * DEGREE
    a = records + left * stride + root
    b = records + right * stride + root
    left_facts = carray(pointer_to(a + padded, np.float32(0)), (3,))
    right_facts = carray(pointer_to(b + padded, np.float32(0)), (3,))
    dot = np.float32(product(a, b, padded)) * (left_facts[0] * right_facts[0])
    height = left_facts[2] - right_facts[2]
    return max(left_facts[1] + right_facts[1] - _TWO * dot, np.float32(0)) + height * height


@entry("void(int64, int64, int64, int64, int64[::1], float32[:, ::1])")
def decode_rows(records: int, stride: int, first: int, end: int, slots: Any, out: Any) -> None:
    """Write the stored vectors of slots[first:end], as float32."""
    padded = out.shape[1]
    root = 4 * padded + 12 * DEGREE
    for row in range(first, end):
        at = records + slots[row] * stride + root
        vector = carray(pointer_to(at, np.int8(0)), (padded,))
        scale = carray(pointer_to(at + padded, np.float32(0)), (1,))[0]
        for i in range(padded):
            out[row, i] = np.float32(vector[i]) * scale


@inner
def merge_candidate(ids: Any, distances: Any, slot: int, distance: Any) -> bool:
    """Insert into a list sorted by distance unless it is there already or too far."""
    count = ids.shape[0]
    if distance >= distances[count - 1]:
        return False
    place = count - 1
    for i in range(count):
        if ids[i] == slot:
            return False
        if distances[i] > distance:
            place = i
            break
    last = count - 1
    for i in range(place, count):
        if ids[i] == slot:
            last = i
            break
        if ids[i] < 0:
            last = i
            break
    for i in range(last, place, -1):
        ids[i] = ids[i - 1]
        distances[i] = distances[i - 1]
    ids[place] = slot
    distances[place] = distance
    return True


@entry("void(int16[:, ::1], float32[:, ::1], int64[::1], int64, int64, int32[:, ::1], float32[:, ::1])")
def merge_leaf(
    vectors: Any, facts: Any, members: Any, first: int, end: int, ids: Any, distances: Any
) -> None:
    """Offer the members of a leaf to the lists of its rows [first, end).

    Args:
        vectors: int16 [m and up to `GROUP` - 1 more, padded], the members' vectors as stored.
        facts: float32 [3, m], their scales, squares and heights.
        members: int64 [m], their slots.
        first, end: rows.
        ids: int32 [slots, list], sorted by distance; -1 where empty.
        distances: float32 beside them, infinity where empty.
    """
    padded = vectors.shape[1]
    count = members.shape[0]
    last = ids.shape[1] - 1
    dots = np.empty(GROUP, np.int32)
    limits = np.empty(GROUP, np.float32)
    for start in range(first, end, GROUP):
        some = min(GROUP, end - start)
        rows = address_of(vectors) + 2 * padded * start
        for i in range(some):
            limits[i] = distances[members[start + i], last]
        for j in range(count):
            column = address_of(vectors) + 2 * padded * j
            products_of_four(rows, 2 * padded, column, padded, address_of(dots))
            for i in range(some):
                row = start + i
                height = facts[2, row] - facts[2, j]
                dot = np.float32(dots[i]) * (facts[0, row] * facts[0, j])
                distance = facts[1, row] + facts[1, j] - _TWO * dot
                distance = max(distance, np.float32(0)) + height * height
                if distance < limits[i] and j != row:
                    vertex = members[row]
                    if merge_candidate(ids[vertex], distances[vertex], members[j], distance):
                        limits[i] = distances[vertex, last]


@inner
def _add(ids: Any, distances: Any, count: int, slot: int, distance: Any) -> int:
    """Insert into a list sorted by distance, unless it is there or there is no room; returns how many there are."""
    for i in range(count):
        if ids[i] == slot:
            return count
    if count == ids.shape[0]:
        return count
    place = count
    while place > 0 and distances[place - 1] > distance:
        ids[place] = ids[place - 1]
        distances[place] = distances[place - 1]
        place -= 1
    ids[place] = slot
    distances[place] = distance
    return count + 1


class _Candidates(NamedTuple):
    """Who may become a neighbour of one vertex, and what `_select` knows of each.

    Attributes:
        ids, distances: sorted by distance from the vertex.
        nearest: float32, how near the nearest kept is that a candidate was compared with; infinity at first.
        tested: int32, how many of those kept it was compared with.
        taken: bool, whether it was kept.
    """

    ids: Any
    distances: Any
    nearest: Any
    tested: Any
    taken: Any


@inner
def _candidates(room: int) -> Any:
    """Room for candidates."""
    return _Candidates(
        np.empty(room, np.int32),
        np.empty(room, np.float32),
        np.empty(room, np.float32),
        np.empty(room, np.int32),
        np.empty(room, np.bool_),
    )


@inner
def _forget(candidates: Any) -> None:
    """Make as if none had been compared or kept."""
    candidates.nearest[:] = np.inf
    candidates.tested[:] = 0
    candidates.taken[:] = False


@inner
def _select(
    store: Any, candidates: Any, count: int, slack: Any, kept: Any, kept_distances: Any, found: int
) -> int:
    """Keep candidates, nearest first, unless one that is kept is nearer to them, times the slack, than the vertex is.

    With slack 1 the relative-neighbourhood rule of NSG; more than 1 lets more pass, as Vamana's alpha does. Called with
    growing slack, no pair is measured twice: who doesn't cover a candidate will not later.

    Args:
        store: address of the records, bytes of each and of its vector.
        candidates: of which the first `count` count.
        kept, kept_distances: those kept, of which there are `found`.

    Returns:
        how many are kept.
    """
    records, stride, padded = store
    ids, distances, nearest, tested, taken = candidates
    for i in range(count):
        if found == kept.shape[0]:
            break
        if taken[i]:
            continue
        limit = distances[i] / slack
        if nearest[i] < limit:
            continue
        j = tested[i]
        while j < found:
            apart = between(records, stride, padded, ids[i], kept[j])
            j += 1
            if apart < nearest[i]:
                nearest[i] = apart
                if apart < limit:
                    break
        tested[i] = j
        if nearest[i] >= limit:
            kept[found] = ids[i]
            kept_distances[found] = distances[i]
            taken[i] = True
            found += 1
    return found


@entry(
    "void(int64, int64, int64, int64[:, ::1], float32[:, ::1], int64[::1], int64, int64, int32[:, ::1], "
    "float32[:, ::1], float32[::1], int32[:, ::1], float32[:, ::1])"
)
def prune_found(
    records: int,
    stride: int,
    padded: int,
    found: Any,
    found_distances: Any,
    vertices: Any,
    first: int,
    end: int,
    near: Any,
    near_distances: Any,
    slacks: Any,
    kept: Any,
    kept_distances: Any,
) -> None:
    """Choose the edges of vertices[first:end] among what a search found and what is known to be near.

    Args:
        found: int64 [vertices, any], slots that a search for each vertex found, -1 where none.
        near: int32 [slots, any], -1 where none; then those that come next after the edges.
        slacks: float32, growing from 1.
        kept: int32 [slots, degree], written.
    """
    room = found.shape[1] + near.shape[1]
    candidates = _candidates(room)
    ids, distances = candidates.ids, candidates.distances
    store = (records, stride, padded)
    both = np.empty(kept.shape[1] + near.shape[1], np.int32)
    both_distances = np.empty(both.shape[0], np.float32)
    for i in range(first, end):
        vertex = vertices[i]
        count = 0
        for j in range(found.shape[1]):
            if found[i, j] >= 0 and found[i, j] != vertex:
                count = _add(ids, distances, count, found[i, j], found_distances[i, j])
        for j in range(near.shape[1]):
            if near[vertex, j] >= 0:
                count = _add(ids, distances, count, near[vertex, j], near_distances[vertex, j])
        _forget(candidates)
        strong = _select(store, candidates, count, slacks[0], both[: kept.shape[1]], both_distances, 0)
        kept[vertex] = -1
        kept_distances[vertex] = np.inf
        for j in range(strong):
            kept[vertex, j] = both[j]
            kept_distances[vertex, j] = both_distances[j]
        total = strong
        for step in range(1, slacks.shape[0]):
            total = _select(
                store, candidates, count, slacks[step], both[: strong + near.shape[1]], both_distances, total
            )
        near[vertex] = -1
        near_distances[vertex] = np.inf
        for j in range(strong, total):
            near[vertex, j - strong] = both[j]
            near_distances[vertex, j - strong] = both_distances[j]


@entry("void(int32[:, ::1], float32[:, ::1], int64[::1], int64, int32[:, ::1], float32[:, ::1])")
def reverse_edges(
    kept: Any, kept_distances: Any, vertices: Any, base: int, back: Any, back_distances: Any
) -> None:
    """Collect for each slot from `base` on the nearest vertices that point at it, sorted.

    Written into `back`, int32 [some slots, any], -1 where there is none.
    """
    back[:, :] = -1
    back_distances[:, :] = np.inf
    last = back.shape[1] - 1
    for i in range(vertices.shape[0]):
        vertex = vertices[i]
        for j in range(kept.shape[1]):
            if kept[vertex, j] < 0:
                break
            target = kept[vertex, j] - base
            if target < 0 or target >= back.shape[0]:
                continue
            distance = kept_distances[vertex, j]
            if not distance < back_distances[target, last]:
                continue
            place = last
            while place > 0 and back_distances[target, place - 1] > distance:
                back[target, place] = back[target, place - 1]
                back_distances[target, place] = back_distances[target, place - 1]
                place -= 1
            back[target, place] = vertex
            back_distances[target, place] = distance


@entry(
    "void(int64, int64, int64, int64[::1], int64, int64, int32[:, ::1], float32[:, ::1], int64, int32[:, ::1], "
    "float32[:, ::1], int32[:, ::1], float32[:, ::1], float32[::1], int32[:, ::1])"
)
def link(
    records: int,
    stride: int,
    padded: int,
    vertices: Any,
    first: int,
    end: int,
    kept: Any,
    kept_distances: Any,
    base: int,
    back: Any,
    back_distances: Any,
    near: Any,
    near_distances: Any,
    slacks: Any,
    linked: Any,
) -> None:
    """Choose the final edges of vertices[first:end] among those kept and those that point at them."""
    room = kept.shape[1] + back.shape[1] + near.shape[1]
    candidates = _candidates(room)
    ids, distances = candidates.ids, candidates.distances
    store = (records, stride, padded)
    unused = np.empty(linked.shape[1], np.float32)
    for i in range(first, end):
        vertex = vertices[i]
        count = 0
        for j in range(kept.shape[1]):
            if kept[vertex, j] >= 0:
                count = _add(ids, distances, count, kept[vertex, j], kept_distances[vertex, j])
        for j in range(back.shape[1]):
            if back[vertex - base, j] >= 0:
                count = _add(ids, distances, count, back[vertex - base, j], back_distances[vertex - base, j])
        _forget(candidates)
        linked[vertex] = -1
        total = _select(store, candidates, count, slacks[0], linked[vertex], unused, 0)
        # What the rule left out, and what it left out before, take the places that are left.
        more = 0
        for j in range(count):
            if not candidates.taken[j]:
                ids[more] = ids[j]
                distances[more] = distances[j]
                more += 1
        count = more
        for j in range(near.shape[1]):
            if near[vertex, j] >= 0:
                known = False
                for e in range(total):
                    known |= linked[vertex, e] == near[vertex, j]
                if not known:
                    count = _add(ids, distances, count, near[vertex, j], near_distances[vertex, j])
        _forget(candidates)
        for step in range(1, slacks.shape[0]):
            total = _select(store, candidates, count, slacks[step], linked[vertex], unused, total)


@entry("int64(int32[:, ::1], int32[::1], bool_[::1])")
def reach(linked: Any, starts: Any, reached: Any) -> int:
    """Mark the slots that edges lead to from any of the starts; returns how many there are."""
    stack = np.empty(linked.shape[0], np.int32)
    depth = 0
    total = 0
    for i in range(starts.shape[0]):
        if starts[i] >= 0 and not reached[starts[i]]:
            reached[starts[i]] = True
            stack[depth] = starts[i]
            depth += 1
    while depth > 0:
        depth -= 1
        total += 1
        vertex = stack[depth]
        for j in range(linked.shape[1]):
            target = linked[vertex, j]
            if target < 0:
                break
            if not reached[target]:
                reached[target] = True
                stack[depth] = target
                depth += 1
    return total


@relaxed
def _difference(vector: Any, scale: Any, middle: Any, other: Any) -> Any:
    """Write vector less middle; returns the sum of magnitudes, that of squares, and middle's under the signs."""
    total = np.float32(0)
    square = np.float32(0)
    signed = np.float32(0)
    for i in range(other.shape[0]):
        difference = np.float32(vector[i]) * scale - middle[i]
        other[i] = difference
        total += abs(difference)
        square += difference * difference
        signed += middle[i] if difference > 0 else -middle[i]
    return total, square, signed


@inner
def _encode_edges(
    records: int,
    stride: int,
    metric: int,
    middle: Any,
    neighbours: Any,
    at: Any,
    other: Any,
) -> None:
    """Write codes, neighbours, constants and slopes at an address, relative to a vector (float32 [padded])."""
    padded = middle.shape[0]
    codes = carray(pointer_to(at, np.uint8(0)), (padded // 4, 16))
    ids = carray(pointer_to(at + 4 * padded, np.int32(0)), (DEGREE,))
    constants = carray(pointer_to(at + 4 * padded + 4 * DEGREE, np.float32(0)), (DEGREE,))
    slopes = carray(pointer_to(at + 4 * padded + 8 * DEGREE, np.float32(0)), (DEGREE,))
    root = 4 * padded + 12 * DEGREE
    codes[:, :] = 0
    for j in range(DEGREE):
        slot = neighbours[j]
        ids[j] = slot
        constants[j] = np.inf
        slopes[j] = 0
        if slot < 0:
            continue
        source = records + slot * stride + root
        vector = carray(pointer_to(source, np.int8(0)), (padded,))
        scale = carray(pointer_to(source + padded, np.float32(0)), (1,))[0]
        total, square, signed = _difference(vector, scale, middle, other)
        shift = 4 * (j >> 4)
        place = j & 15
        for first in range(0, padded, 32):
            bits = positive_bits(address_of(other) + 4 * first)
            for group in range(8):
                codes[first // 4 + group, place] |= np.uint8(((bits >> (4 * group)) & 15) << shift)
        ratio = square / total if total > 0 else np.float32(0)
        if metric == METRIC_DOT:
            constants[j] = 0
            slopes[j] = -ratio
        else:
            constants[j] = square + _TWO * ratio * signed
            slopes[j] = -_TWO * ratio


@entry("void(int64, int64, int64, int64, int32[:, ::1], int64[::1], int64, int64)")
def encode_vertices(
    records: int, stride: int, padded: int, metric: int, neighbours: Any, slots: Any, first: int, end: int
) -> None:
    """Write the edges of slots[first:end], which are int32 [vertices, DEGREE], into their records."""
    root = 4 * padded + 12 * DEGREE
    middle = np.empty(padded, np.float32)
    other = np.empty(padded, np.float32)
    for i in range(first, end):
        at = records + slots[i] * stride
        vector = carray(pointer_to(at + root, np.int8(0)), (padded,))
        scale = carray(pointer_to(at + root + padded, np.float32(0)), (1,))[0]
        for e in range(padded):
            middle[e] = np.float32(vector[e]) * scale
        _encode_edges(records, stride, metric, middle, neighbours[i], at, other)


@entry("void(int64, int64, int64, int64, int32[:, ::1], int64)")
def encode_roots(records: int, stride: int, padded: int, metric: int, slots: Any, roots: int) -> None:
    """Write blocks of roots, int32 [blocks, DEGREE], coded around the centre."""
    root = 4 * padded + 12 * DEGREE
    middle = np.zeros(padded, np.float32)
    other = np.empty(padded, np.float32)
    for block in range(slots.shape[0]):
        _encode_edges(records, stride, metric, middle, slots[block], roots + block * root, other)
