"""Scan the partitions that queries probe, partition by partition, keeping each query's best estimates.

A batch is executed in waves, each query's nearest partitions first, so that thresholds are tight before the many far
partitions come. Within a wave a partition is visited once for all queries that probe it, a group of them at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.capability import has_avx2
from vectorlake.kernels.distance import address_of, as_floats, pointer_to, width_of
from vectorlake.kernels.ivf.encode import dot
from vectorlake.kernels.ivf.fastscan import (
    BLOCK,
    GROUP,
    LINE,
    TOGETHER,
    judge,
    scan_group_coarse,
    scan_group_fine,
    scan_one_coarse,
    scan_one_fine,
    scan_portable,
)
from vectorlake.kernels.ivf.select import keep_smallest
from vectorlake.kernels.jit import entry, inner, pasted
from vectorlake.kernels.microkernel import trailing_zeros

TERMS_BYTES = 2 * 4 * BLOCK
"""A constant and a factor for each row stand at the end of a block."""
LOOK_UPS = -1
_WIDE = has_avx2()
"""Known when the code is compiled, so that what this CPU can't run, or has no need of, is left out."""


@inner
def _blocks_for(queries: int) -> int:
    """How many blocks so many queries are taken past at a time."""
    return TOGETHER if queries == 1 else 1


@pasted
def _add_up(
    fine: int,
    queries: int,
    planes: int,
    codes: int,
    stride: int,
    tables: int,
    pairs: int,
    sums: int,
) -> None:
    """Sums of a block for GROUP queries, or of TOGETHER blocks for one; the most significant plane comes first."""
    for plane in range(planes):
        at = codes + plane * pairs * BLOCK
        factor = np.float32(2.0 if plane else 0.0)
        if not _WIDE:
            scan_portable(queries, _blocks_for(queries), at, stride, tables, pairs, factor, sums)
        elif queries == GROUP:
            if fine:
                scan_group_fine(at, stride, tables, pairs, factor, sums)
            else:
                scan_group_coarse(at, stride, tables, pairs, factor, sums)
        elif fine:
            scan_one_fine(at, stride, tables, pairs, factor, sums)
        else:
            scan_one_coarse(at, stride, tables, pairs, factor, sums)


@pasted
def _multiply(
    style: int, queries: int, part: int, codes: int, tables: int, elements: int, row: Any, sums: Any
) -> None:
    """Inner products of a block's codes, numbers of some type, with queries."""
    table_at = carray(pointer_to(tables, np.int64(0)), (queries,))
    stride = elements * width_of(style)
    for lane in range(BLOCK):
        source, single = as_floats(style, codes + lane * stride, elements, row)
        if single == 0:
            doubles = carray(pointer_to(source, np.float64(0)), (elements,))
            for i in range(elements):
                row[i] = np.float32(doubles[i])
            source = address_of(row)
        code = carray(pointer_to(source, np.float32(0)), (elements,))
        for q in range(queries):
            query = carray(pointer_to(table_at[q], np.float32(0)), (elements,))
            sums[(q + part) * BLOCK + lane] = _finite(dot(code, query))


@inner
def _finite(value: Any) -> Any:
    """Overflow gives way to 0: such rows have a factor of 0."""
    return value if abs(value) < np.float32(np.inf) else np.float32(0)


@inner
def _take(
    mask: int, estimates: Any, first_slot: int, found: Any, slots: Any, count: int, pool: int, threshold: Any
) -> tuple[Any, Any]:
    """Append what passed; returns the new count and threshold."""
    while mask != 0:
        j = trailing_zeros(mask)
        mask &= mask - 1
        found[count] = estimates[j]
        slots[count] = first_slot + j
        count += 1
    if count > found.shape[0] - BLOCK:
        count, threshold = keep_smallest(found, slots, count, pool, pool // 4)
    return count, threshold


@pasted
def _visit(
    style: int,
    fine: int,
    planes: int,
    pairs: int,
    block_bytes: int,
    address: int,
    first_block: int,
    blocks: int,
    allowed: Any,
    tables: int,
    members: Any,
    lines: Any,
    queries: int,
    pool: int,
    found: Any,
    slots: Any,
    counts: Any,
    thresholds: Any,
    sums: Any,
    estimates: Any,
    row: Any,
) -> None:
    """Take one query, or GROUP of them, past the blocks of a partition."""
    filtered = allowed.shape[0] > 0
    everything = np.int64(0xFFFFFFFF)
    terms = block_bytes - TERMS_BYTES
    together = _blocks_for(queries)
    for block in range(0, blocks, together):
        both = together > 1 and block + 1 < blocks
        first_mask = everything
        second_mask = everything if both else np.int64(0)
        if filtered:
            first_mask = np.int64(allowed[first_block + block])
            second_mask = np.int64(allowed[first_block + block + 1]) if both else np.int64(0)
            if (first_mask | second_mask) == 0:
                continue
        codes = address + block * block_bytes
        stride = block_bytes if both else 0
        if style == LOOK_UPS:
            _add_up(fine, queries, planes, codes, stride, tables, pairs, address_of(sums))
        else:
            for part in range(2 if both else 1):
                _multiply(style, queries, part, codes + part * stride, tables, pairs, row, sums)
        for member in range(queries):
            for part in range(together):
                mask = second_mask if part else first_mask
                if mask == 0:
                    continue
                mask &= judge(
                    address_of(sums) + (member + part) * BLOCK * 4,
                    codes + part * block_bytes + terms,
                    address_of(lines) + member * LINE * 4,
                    address_of(estimates),
                )
                if mask != 0:
                    q = members[member]
                    counts[q], thresholds[q] = _take(
                        mask,
                        estimates,
                        (first_block + block + part) * BLOCK,
                        found[q],
                        slots[q],
                        counts[q],
                        pool,
                        thresholds[q],
                    )
                    lines[member, LINE - 1] = thresholds[q]


@pasted
def _group_by_partition(probes: Any, start: int, stop: int, ends: Any, queries: Any, places: Any) -> None:
    """Sort the probes [start, stop) of all queries by partition, by counting.

    Afterwards ends[p] is where those of partition p end in `queries` and `places`, and ends[p - 1] where they begin.
    """
    ends[:] = 0
    for q in range(probes.shape[0]):
        for i in range(start, stop):
            if probes[q, i] >= 0:
                ends[probes[q, i]] += 1
    total = 0
    for p in range(ends.shape[0]):
        total += ends[p]
        ends[p] = total - ends[p]
    for q in range(probes.shape[0]):
        for i in range(start, stop):
            p = probes[q, i]
            if p >= 0:
                queries[ends[p]] = q
                places[ends[p]] = i
                ends[p] += 1


@entry(
    "void(int64, int64, int64, int64, int64, int64[::1], int64[::1], uint32[::1], uint8[:, ::1], float32[::1], "
    "float32[::1], int32[:, ::1], float32[:, ::1], int64[::1], int64, int64, float32[:, ::1], int64[:, ::1], "
    "int64[::1])"
)
def scan(
    style: int,
    fine: int,
    planes: int,
    pairs: int,
    block_bytes: int,
    addresses: Any,
    first_blocks: Any,
    allowed: Any,
    tables: Any,
    slopes: Any,
    bases: Any,
    probes: Any,
    shifts: Any,
    waves: Any,
    pool: int,
    room: int,
    estimates: Any,
    nominated: Any,
    looked: Any,
) -> None:
    """Nominate slots for some queries.

    Args:
        style: LOOK_UPS for codes that are looked up in tables, else the element type of codes that are multiplied.
        fine: whether table entries exceed COARSE.
        planes: bit planes of a code, scanned with the same tables; the most significant first.
        pairs: bytes of a row's code in one plane; elements of one that is multiplied.
        block_bytes: bytes of a block: planes * pairs * 32, and the rows' terms.
        addresses: int64 [partitions], where each partition's blocks stand; not read for those not probed.
        first_blocks: int64 [partitions + 1], number of its first block, and the end.
        allowed: uint32 [blocks], which rows of each block may be nominated; empty for all.
        tables: uint8 [queries, pairs * 32], or the bytes of float32 [queries, pairs] to multiply codes by.
        slopes: float32 [queries], an estimate is constant + shift + factor * (slope * sum + base).
        bases: float32 [queries].
        probes: int32 [queries, probes], partitions, -1 for none; the nearest of each query in the first wave.
        shifts: float32 [queries, probes], what estimates in them are shifted by.
        waves: int64 [w], ascending, with which probe each wave but the last ends.
        pool: how many slots to nominate.
        room: at least pool + 2 * 32.
        estimates: float32 [queries, pool], written: infinity where there is none.
        nominated: int64 [queries, pool], written: -1 where there is none.
        looked: int64 [2], added to: partitions that queries looked at, and blocks.
    """
    count = probes.shape[0]
    partitions = first_blocks.shape[0] - 1
    total = count * probes.shape[1]
    ends = np.empty(partitions, np.int64)
    by_partition = np.empty(total, np.int32)
    places = np.empty(total, np.int32)
    counts = np.zeros(count, np.int64)
    thresholds = np.full(count, np.float32(np.inf))
    scores = np.empty((count, room), np.float32)
    slots = np.empty((count, room), np.int64)
    row = np.empty(pairs, np.float32)
    sums = np.zeros(max(GROUP, TOGETHER) * BLOCK, np.float32)
    block_estimates = np.empty(BLOCK, np.float32)
    members = np.zeros(GROUP, np.int64)
    lines = np.zeros((GROUP, LINE), np.float32)
    group_tables = np.zeros(GROUP, np.int64)
    stop = 0
    for wave in range(waves.shape[0] + 1):
        start = stop
        stop = min(waves[wave], probes.shape[1]) if wave < waves.shape[0] else probes.shape[1]
        if start == stop:
            continue
        _group_by_partition(probes, start, stop, ends, by_partition, places)
        place = 0
        for p in range(partitions):
            while place < ends[p]:
                size = GROUP if ends[p] - place >= GROUP else 1
                for member in range(size):
                    q = by_partition[place + member]
                    members[member] = q
                    lines[member, 0] = slopes[q]
                    lines[member, 1] = bases[q]
                    lines[member, 2] = shifts[q, places[place + member]]
                    lines[member, 3] = thresholds[q]
                    group_tables[member] = address_of(tables) + q * tables.shape[1]
                _visit(
                    style,
                    fine,
                    planes,
                    pairs,
                    block_bytes,
                    addresses[p],
                    first_blocks[p],
                    first_blocks[p + 1] - first_blocks[p],
                    allowed,
                    address_of(group_tables),
                    members,
                    lines,
                    size,
                    pool,
                    scores,
                    slots,
                    counts,
                    thresholds,
                    sums,
                    block_estimates,
                    row,
                )
                place += size
                looked[0] += size
                looked[1] += size * (first_blocks[p + 1] - first_blocks[p])
        for q in range(count):
            if counts[q] > pool:
                counts[q], thresholds[q] = keep_smallest(scores[q], slots[q], counts[q], pool, 0)
    for q in range(count):
        for i in range(pool):
            taken = i < counts[q]
            estimates[q, i] = scores[q, i] if taken else np.float32(np.inf)
            nominated[q, i] = slots[q, i] if taken else -1
