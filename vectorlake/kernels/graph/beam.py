"""Beam search of one or several queries at a time, in lockstep so that memory is waited for by one while others work.

As in SymphonyQG (Gou et al., SIGMOD 2025): a visit measures the vertex itself and estimates the distances of all its
neighbours from one-bit codes (RaBitQ: Gao and Long, SIGMOD 2024) by table look-ups in registers (André et al., VLDB 2015).
A search ends when its beam is visited, or earlier at the first vertex that is estimated to be farther than the farthest of
the pool by a slack (Al-Jazzazi et al., "Distance adaptive beam search", 2025): easy queries leave time to hard ones.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.counter import take
from vectorlake.kernels.distance import METRIC_DOT, address_of, hold, pointer_to, single_of_bits
from vectorlake.kernels.graph.frontier import ROOM as FRONTIER_ROOM
from vectorlake.kernels.graph.frontier import below, crowded, cutoff, least, run_of
from vectorlake.kernels.graph.lanes import LINES, bits_of_single, code_sums, estimates, move_up
from vectorlake.kernels.graph.query import (
    BOUND,
    FLOOR,
    HEIGHT,
    NUMBERS,
    OFFSET,
    SHIFT,
    SQUARE,
    STEP_OF,
    allows,
    fill_table,
    measure,
    product_with,
)
from vectorlake.kernels.graph.record import DEGREE, STEP
from vectorlake.kernels.graph.rotation import prepare
from vectorlake.kernels.jit import entry, inner
from vectorlake.kernels.microkernel import prefetch, trailing_zeros

LANES: Final = 2
"""Queries in lockstep: while one is worked on, the next vertex of the other is fetched. More would only crowd the cache."""
_STARTS: Final = 8
"""How many of the roots are kept."""

# Places in a lane's integers.
_QUERY: Final = 0
_SIZE: Final = 1
_VISITED: Final = 2
_FOUND: Final = 3
_VISITS: Final = 4
_MET: Final = 6
_CUTOFF: Final = 7
_STATE: Final = 8
_TRAIL: Final = 16

ROOM: Final = 64
"""So many keys are compared at once."""
UNUSED: Final = np.iinfo(np.int64).max
"""After all keys."""

_CODE_TERMS: Final = 4 * DEGREE


@inner
def _sortable(bits: Any) -> Any:
    """The bits of a float32, as an integer in the order of the floats; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@inner
def key_of(bits: Any, slot: Any) -> Any:
    """Distance above slot; two apart at least, so that a limit fits between any."""
    return (np.int64(_sortable(np.int64(bits))) << 32) | (slot << 1)


@inner
def slot_of(key: Any) -> Any:
    return (key & 0xFFFFFFFF) >> 1


@inner
def distance_bits_of(key: Any) -> Any:
    return _sortable(key >> 32)


@inner
def put(keys: Any, size: int, capacity: int, key: int) -> int:
    """Insert a key into a sorted list, whose last leaves when it is full; returns its place.

    The key must fit in. There is room for `ROOM` keys more than the list takes, and all that are unused are `UNUSED`.
    """
    # A search by halves mispredicts, or waits, in every step: the last few keys are counted all at once.
    low, left = 0, size
    while left > ROOM:
        half = left >> 1
        low += half if keys[low + half - 1] < key else 0
        left -= half
    rest = carray(pointer_to(address_of(keys) + 8 * low, np.int64(0)), (ROOM,))
    smaller = np.int64(0)
    for i in range(ROOM):
        smaller += np.int64(rest[i] < key)
    low += int(smaller)
    moved = (size if size < capacity else capacity - 1) - low
    if moved > 0:
        move_up(address_of(keys) + 8 * low, moved)
    keys[low] = key
    return low


@inner
def _met_first(mask: Any, neighbours: Any, bits: Any, seen: Any, trail: Any, state: Any, keys: Any) -> Any:
    """Mark those of a mask's neighbours that have not been met, and list their keys; returns how many there are.

    All are written, and only the new ones kept: a branch on whether one was met is as often wrong as right.
    """
    met = state[_MET]
    most = trail.shape[0] - 1
    fresh = 0
    while mask != 0:
        j = trailing_zeros(mask)
        mask &= mask - 1
        slot = np.int64(neighbours[j])
        place = np.uint64(slot >> 5)
        shift = np.uint32(slot & 31)
        word = seen[place]
        new: Any = np.int64(~(word >> shift) & np.uint32(1))
        seen[place] = word | (np.uint32(1) << shift)
        keys[fresh] = key_of(bits[j], slot)
        trail[min(met, most)] = slot
        fresh += new
        met += new
    state[_MET] = met
    return fresh


@inner
def _forget_one(seen: Any, slot: Any) -> None:
    seen[np.uint64(slot >> 5)] &= ~(np.uint32(1) << np.uint32(slot & 31))


@inner
def _neighbours(
    codes: int,
    base: Any,
    padded: int,
    table: Any,
    numbers: Any,
    state: Any,
    seen: Any,
    trail: Any,
    sums: Any,
    values: Any,
    keys: Any,
    ahead: int,
) -> Any:
    """List the keys of those of 32 neighbours that are estimated to be near enough, and have not been met before; returns
    how many there are. Meanwhile the record at `ahead` is fetched."""
    neighbours = carray(pointer_to(codes + 4 * padded, np.int32(0)), (DEGREE,))
    bits = carray(pointer_to(address_of(values), np.int32(0)), (DEGREE,))
    code_sums(codes, address_of(table), padded // STEP, address_of(sums), ahead)
    limit = numbers[BOUND]
    if state[_CUTOFF] != UNUSED:
        limit = min(limit, single_of_bits(np.uint32(distance_bits_of(state[_CUTOFF]))))
    mask = estimates(
        address_of(sums),
        codes + 4 * padded + _CODE_TERMS,
        numbers[STEP_OF],
        numbers[OFFSET],
        np.float32(base),
        limit,
        address_of(values),
    )
    return _met_first(mask, neighbours, bits, seen, trail, state, keys)


@inner
def _drop(frontier: Any, width: int, seen: Any, state: Any) -> None:
    """Leave few more than `width` in a frontier."""
    size, visited = state[_SIZE], state[_VISITED]
    limit = cutoff(frontier, size, visited, width)
    state[_CUTOFF] = limit
    kept = np.int64(0)
    for i in range(size):
        key = frontier[i]
        frontier[kept] = key
        if key < limit:
            kept += 1
        else:
            # It may come back: from nearer by its distance is estimated better.
            _forget_one(seen, slot_of(key))
    state[_SIZE] = kept
    kept = np.int64(0)
    end = frontier.shape[0] - 1
    for i in range(visited):
        key = frontier[end - i]
        frontier[end - kept] = key
        kept += np.int64(key < limit)
    state[_VISITED] = kept


@inner
def _next(state: Any, frontier: Any, width: int, bound: Any) -> Any:
    """Take the nearest of the frontier that was not visited; -1 when `width` nearer ones were, or it is beyond the bound."""
    size, visited = state[_SIZE], state[_VISITED]
    if size == 0:
        return -1
    key, place = least(frontier, size)
    if single_of_bits(np.uint32(distance_bits_of(key))) > bound:
        return -1
    end = frontier.shape[0]
    if visited >= width and below(run_of(frontier, end - visited, visited), visited, key) >= width:
        return -1
    frontier[place] = frontier[size - 1]
    frontier[end - visited - 1] = key
    state[_SIZE] = size - 1
    state[_VISITED] = visited + 1
    return slot_of(key)


@inner
def _enter(
    roots: Any,
    blocks: int,
    root: int,
    base: Any,
    padded: int,
    table: Any,
    numbers: Any,
    state: Any,
    frontier: Any,
    few: int,
    seen: Any,
    trail: Any,
    sums: Any,
    values: Any,
    keys: Any,
    ahead: int,
) -> None:
    """Put the nearest few of all roots into a frontier; meanwhile the record at `ahead` is fetched."""
    for i in range(few + ROOM):
        frontier[i] = UNUSED
    state[_CUTOFF] = UNUSED
    size: Any = 0
    for block in range(blocks):
        fresh = _neighbours(
            roots + block * root, base, padded, table, numbers, state, seen, trail, sums, values, keys, ahead
        )  # fmt: skip
        for i in range(fresh):
            key = keys[i]
            if size == few:
                if key >= frontier[few - 1]:
                    _forget_one(seen, slot_of(key))
                    continue
                _forget_one(seen, slot_of(frontier[few - 1]))
            put(frontier, size, few, key)
            size = min(size + 1, few)
        if size == few:
            state[_CUTOFF] = frontier[few - 1]
    state[_CUTOFF] = UNUSED
    state[_SIZE] = size


@inner
def _depth(frontier: Any, best: Any, pool: int, state: Any) -> Any:
    """How many of the vertices visited are estimated to be nearer than the farthest of a full pool."""
    if state[_FOUND] < pool:
        return state[_VISITS]
    visited = state[_VISITED]
    return below(run_of(frontier, frontier.shape[0] - visited, visited), visited, best[pool - 1])


@inner
def _bound(best: Any, pool: int, found: Any, slack: Any, numbers: Any) -> Any:
    """From where on nothing is visited: beyond the farthest of a full pool, by a share of its distance.

    Inner products have no zero to count from: there it is the product that the longest vector could have.
    """
    if found < pool or slack == np.inf:
        return np.float32(np.inf)
    farthest = single_of_bits(np.uint32(distance_bits_of(best[pool - 1])))
    return np.float32(farthest + slack * max(farthest + numbers[FLOOR], np.float32(0)))


@inner
def _offer(best: Any, state: Any, distance: Any, slot: Any) -> None:
    key = key_of(bits_of_single(np.float32(distance)), slot)
    found = state[_FOUND]
    pool = best.shape[0] - ROOM
    if found == pool and key >= best[pool - 1]:
        return
    put(best, found, pool, key)
    state[_FOUND] = min(found + 1, pool)


@inner
def _receive(
    records: int,
    stride: int,
    root: int,
    padded: int,
    metric: int,
    guests: int,
    allowed: int,
    words: int,
    numbers: Any,
    best: Any,
    state: Any,
) -> None:
    """Measure a host's guests: as many as make a difference, for those of one host are mostly its duplicates."""
    count = carray(pointer_to(guests, np.int32(0)), (1,))[0]
    slots = carray(pointer_to(guests + 4, np.int32(0)), (count,))
    offered = 0
    for i in range(count):
        slot = np.int64(slots[i])
        if allows(allowed, slot):
            vector = records + slot * stride + root
            _offer(best, state, measure(metric, vector + padded, vector, words, padded, numbers), slot)
            offered += 1
            if offered == best.shape[0] - ROOM:
                break


@inner
def _guests_of(vector: Any, padded: int) -> Any:
    """Where the guests of a vertex begin; -1 if it has none."""
    return carray(pointer_to(vector + padded + 12, np.int32(0)), (1,))[0]


@inner
def _decode(source: Any, rotated: Any) -> Any:
    """Write a stored vector as float32; returns its height."""
    padded = rotated.shape[0]
    stored = carray(pointer_to(source, np.int8(0)), (padded,))
    facts = carray(pointer_to(source + padded, np.float32(0)), (3,))
    for i in range(padded):
        rotated[i] = np.float32(stored[i]) * facts[0]
    return facts[2]


@inner
def _prefetch(record: Any, begin: int, stride: int) -> None:
    for offset in range(begin, stride, 64):
        prefetch(record + offset)


@inner
def _visit(
    records: int,
    stride: int,
    slot: Any,
    root: int,
    padded: int,
    guests: int,
    metric: int,
    allowed: int,
    words: Any,
    numbers: Any,
    best: Any,
    state: Any,
) -> Any:
    """Measure a vertex and its guests, and offer them; returns the vertex's distance."""
    vector = records + slot * stride + root
    distance = measure(metric, vector + padded, vector, address_of(words), padded, numbers)
    state[_VISITS] += 1
    if allows(allowed, slot):
        _offer(best, state, distance, slot)
    place = _guests_of(vector, padded)
    if place >= 0:
        at = address_of(words)
        _receive(records, stride, root, padded, metric, guests + 4 * place, allowed, at, numbers, best, state)
    return distance


@inner
def _finish(best: Any, count: int, numbers: Any, factor: Any, slots: Any, distances: Any) -> None:
    """Write what was found, in the metric's own distances."""
    for i in range(slots.shape[0]):
        slots[i] = -1
        distances[i] = np.inf
        if i < count:
            measured = single_of_bits(np.uint32(distance_bits_of(best[i])))
            distance = (measured - numbers[SHIFT]) * np.float32(factor)
            if abs(distance) < np.inf:
                slots[i] = slot_of(best[i])
                distances[i] = distance


@inner
def _forget(trail: Any, visits: Any, seen: Any) -> None:
    """Clear the marks of vertices visited."""
    if visits >= trail.shape[0]:
        seen[:] = 0
        return
    for i in range(visits):
        seen[trail[i] >> 5] = 0


@entry(
    "void(int64, int64, int64, int64, int64, int64, int64, float32[:, ::1], int64[::1], int64[::1], int64, float32[::1], "
    "int8[:, ::1], int64, int64, int64, int64, int64[::1], float64, float32, float32, int64[:, ::1], "
    "float32[:, ::1], int64[::1], int64[::1])"
)
def search_beam(
    records: int,
    stride: int,
    slots: int,
    roots: int,
    root_blocks: int,
    guests: int,
    metric: int,
    queries: Any,
    vertices: Any,
    turn: Any,
    end: int,
    centre: Any,
    signs: Any,
    lanes: int,
    width: int,
    pool: int,
    allowed: int,
    omitted: Any,
    factor: float,
    slack: float,
    longest: float,
    found_slots: Any,
    found_distances: Any,
    visited: Any,
    depths: Any,
) -> None:
    """Search for the queries that a counter gives, until the end.

    Args:
        records: address of the records.
        stride: bytes of a record.
        slots: how many records there are.
        roots: address of the blocks of roots.
        root_blocks: how many there are.
        guests: address of int32 runs, each of a count and that many slots.
        metric: one of `distance`'s constants.
        queries: float32 [n, d].
        vertices: int64 [n], slots whose vectors are the queries; empty for those above.
        turn: the counter, int64 [1]: threads that share it share out the queries.
        end: the query after the last.
        centre: float32 [d].
        signs: int8 [rounds, padded], the rotation.
        lanes: how many queries to work on at a time.
        width: of the beam: how many of the nearest by estimate are kept and visited.
        pool: how many of those measured are returned, at least 1.
        allowed: address of the filter's words, or 0.
        omitted: int64 [n], for each query a slot that is taken for met before the search begins, unless it has
            guests; empty for none.
        factor: what distances are multiplied by at last.
        slack: a search ends at a vertex that is farther than all of a full pool by this share; infinity for never.
        longest: length of the longest vector, from which inner products are counted for that; else 0.
        found_slots: int64 [n, pool], -1 where none; written.
        found_distances: float32 [n, pool], infinity where none; written.
        visited: int64 [n], vertices visited; written.
        depths: int64 [n], how many of the vertices visited are estimated to be nearer than the farthest of a full pool; all
            that were where it is not full; written.
    """
    padded = signs.shape[1]
    root = 4 * padded + 12 * DEGREE
    tables = np.empty((lanes, 4 * padded), np.uint8)
    words = np.empty((lanes, padded), np.int16)
    numbers = np.zeros((lanes, NUMBERS), np.float32)
    states = np.zeros((lanes, _STATE), np.int64)
    length = width + FRONTIER_ROOM
    frontiers = np.empty((lanes, length), np.int64)
    bests = np.empty((lanes, pool + ROOM), np.int64)
    marks = (slots + 31) // 32
    seen = np.zeros((lanes, marks), np.uint32)
    steps = _TRAIL * width + 1
    trail = np.empty((lanes, steps), np.int32)
    current = np.full(lanes, -1, np.int64)
    rotated = np.empty(padded, np.float32)
    sums = np.empty(DEGREE, np.uint16)
    values = np.empty(DEGREE, np.float32)
    keys = np.empty(DEGREE + 1, np.int64)
    states_at, frontiers_at, bests_at = address_of(states), address_of(frontiers), address_of(bests)
    tables_at, words_at, numbers_at = address_of(tables), address_of(words), address_of(numbers)
    seen_at, trail_at = address_of(seen), address_of(trail)
    sum_of = carray(pointer_to(address_of(sums), np.uint16(0)), (DEGREE,))
    key_at = carray(pointer_to(address_of(keys), np.int64(0)), (DEGREE + 1,))
    value_of = carray(pointer_to(address_of(values), np.float32(0)), (DEGREE,))
    spread = 64 * LINES * (padded // STEP)
    ahead = roots
    turn_at = address_of(turn)
    left = True
    active = True
    while active:
        active = False
        for lane in range(lanes):
            # Views that own nothing: no reference is counted where they are passed on.
            state = carray(pointer_to(states_at + 8 * _STATE * lane, np.int64(0)), (_STATE,))
            frontier = carray(pointer_to(frontiers_at + 8 * length * lane, np.int64(0)), (length,))
            best = carray(pointer_to(bests_at + 8 * (pool + ROOM) * lane, np.int64(0)), (pool + ROOM,))
            table = carray(pointer_to(tables_at + 4 * padded * lane, np.uint8(0)), (4 * padded,))
            word = carray(pointer_to(words_at + 2 * padded * lane, np.int16(0)), (padded,))
            number = carray(pointer_to(numbers_at + 4 * NUMBERS * lane, np.float32(0)), (NUMBERS,))
            mark = carray(pointer_to(seen_at + 4 * marks * lane, np.uint32(0)), (marks,))
            past = carray(pointer_to(trail_at + 4 * steps * lane, np.int32(0)), (steps,))
            if current[lane] < 0:
                if not left:
                    continue
                query = take(turn_at, 1)
                if query >= end:
                    left = False
                    continue
                active = True
                number[HEIGHT] = 0
                number[SHIFT] = 0
                number[BOUND] = np.inf
                if vertices.shape[0] > 0:
                    number[HEIGHT] = _decode(records + vertices[query] * stride + root, rotated)
                elif not prepare(metric, queries[query], centre, metric != METRIC_DOT, signs, rotated):
                    visited[query] = 0
                    depths[query] = 0
                    _finish(best, 0, number, factor, found_slots[query], found_distances[query])
                    continue  # nothing is near it
                elif metric == METRIC_DOT:
                    number[SHIFT] = product_with(queries[query], centre)
                fill_table(rotated, table, word, number)
                number[FLOOR] = longest * np.sqrt(number[SQUARE])
                state[:] = 0
                best[:] = UNUSED
                state[_QUERY] = query
                if omitted.shape[0] > 0 and _guests_of(records + omitted[query] * stride + root, padded) < 0:
                    mark[omitted[query] >> 5] |= np.uint32(1) << np.uint32(omitted[query] & 31)
                    past[0] = omitted[query]
                    state[_MET] = 1
                base = np.float32(0) if metric == METRIC_DOT else number[SQUARE]
                _enter(
                    roots, root_blocks, root, base, padded, table, number, state, frontier, min(width, _STARTS), mark,
                    past, sum_of, value_of, key_at, ahead,
                )  # fmt: skip
            else:
                active = True
                record = records + current[lane] * stride
                if lanes == 1:
                    ahead = record
                    if state[_SIZE] > 0:
                        # Likely the one after this: it comes while this one is worked on.
                        likely, _ = least(frontier, state[_SIZE])
                        ahead = records + slot_of(likely) * stride
                        _prefetch(ahead, spread, stride)
                base = _visit(
                    records, stride, current[lane], root, padded, guests, metric, allowed, word,
                    number, best, state,
                )  # fmt: skip
                number[BOUND] = _bound(best, pool, state[_FOUND], slack, number)
                state[_SIZE] += _neighbours(
                    record, base, padded, table, number, state, mark, past, sum_of, value_of,
                    run_of(frontier, state[_SIZE], DEGREE + 1), ahead,
                )  # fmt: skip
                if crowded(state[_SIZE], state[_VISITED], width):
                    _drop(frontier, width, mark, state)
            current[lane] = _next(state, frontier, width, number[BOUND])
            if current[lane] >= 0:
                # A core has no room for all of these requests and drops some: with lanes, all are made again, little by
                # little, while the next of them is worked on.
                ahead = records + current[lane] * stride
                _prefetch(ahead, 0, stride)
                continue
            query = state[_QUERY]
            visited[query] = state[_VISITS]
            depths[query] = _depth(frontier, best, pool, state)
            _forget(past, state[_MET], mark)
            _finish(best, state[_FOUND], number, factor, found_slots[query], found_distances[query])
    # All of these are used by their addresses alone.
    hold(states)
    hold(frontiers)
    hold(bests)
    hold(tables)
    hold(words)
    hold(numbers)
    hold(seen)
    hold(trail)
    hold(sums)
    hold(values)
    hold(keys)
    hold(turn)
