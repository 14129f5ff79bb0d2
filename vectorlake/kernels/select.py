"""Compiled selection: rows that a bound cannot rule out are candidates, and these are measured in float64.

Nearness here is a float32 number, larger for nearer rows: in product space (see `quantize`) the inner
product, less half the row's square except under dot, in units of (longest row of the block) * (longest of
that and the query). `high` is the most that a row's nearness can be, `low` the least, but for the slack of
float32 arithmetic, which thresholds allow for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from vectorlake.kernels.distance import (
    METRIC_COSINE,
    METRIC_DOT,
    METRIC_L2,
    address_of,
    as_floats,
    distance,
    norm,
    pointer_to,
    widen,
    width_of,
)
from vectorlake.kernels.heap import offer
from vectorlake.kernels.jit import inner
from vectorlake.kernels.microkernel import (
    PANEL_ROWS,
    multiply_bytes,
    prefetch,
    test_floats,
    test_integers,
    trailing_zeros,
)
from vectorlake.kernels.quantize import (
    ERROR,
    KIND,
    KIND_BOUNDED,
    KIND_DEAD,
    NORM,
    OFFSET,
    SCALE,
    SLACK,
    SQUARE,
    TAIL,
    UNIT,
)

RUN = 512
"""Rows whose products are looked at together: their codes stay in a core's cache for a group of queries."""

assert RUN % PANEL_ROWS == 0

_CODES_AHEAD = 6
_AHEAD = 3
_AHEAD_BYTES = 2048

_MANY = 4
_MANY_MORE = 32
"""Candidates, per k and besides, that are worth a pause to measure the likeliest."""

LEAST = np.float32(-3e38)
"""The threshold that every row reaches that may match."""
_NONE = np.float32(-np.inf)
_ALL = np.float32(np.inf)


@inner
def _slack(metric: int, facts: Any, dimension: int, largest: float, unit: float) -> Any:
    """What arithmetic may lose of a nearness: float32 here, and float64 where distances are measured.

    2**-17 is over four times all roundings of the test; the next term those of the rows' norms.
    """
    slack = 2.0**-17 + 4 * (dimension + 16) * UNIT
    tiny = (dimension + 64) * 2.0**-51
    length = np.sqrt(facts[SQUARE])
    if metric == METRIC_COSINE:
        slack += ((8 * UNIT) * (largest + 8 * UNIT) + tiny) / unit
    elif metric == METRIC_L2:
        slack += tiny * (length + largest) ** 2 / unit
    else:
        slack += tiny * length * (largest + facts[SLACK]) / unit
    return slack


@inner
def _unit(facts: Any, largest: float) -> Any:
    return largest * max(np.sqrt(facts[SQUARE]), max(facts[NORM], largest))


@inner
def _line(metric: int, facts: Any, dimension: int, largest: float, line: Any) -> None:
    """Write how a distance becomes a threshold (see `_threshold`): constant, slope, and slope of its magnitude."""
    tiny = (dimension + 64) * 2.0**-51
    unit = _unit(facts, largest)
    slack = _slack(metric, facts, dimension, largest, unit)
    if metric == METRIC_DOT:
        line[0] = -facts[OFFSET] / unit - slack
        line[1] = 1.0 / unit
    elif metric == METRIC_L2:
        line[0] = 0.5 * facts[SQUARE] / unit - slack
        line[1] = 0.5 / unit
    else:
        line[0] = (0.5 * facts[SQUARE] - tiny) / unit - slack
        line[1] = 1.0 / unit
    line[2] = tiny * line[1]
    if facts[KIND] != KIND_BOUNDED:
        line[0] = np.inf if facts[KIND] == KIND_DEAD else -np.inf
        line[1] = 0.0
        line[2] = 0.0


@inner
def _threshold(line: Any, root: float) -> Any:
    """The nearness below which no row is as near as distance `root`."""
    if not root < np.inf and line[1] > 0:
        return LEAST
    if line[1] == 0:
        return _ALL if line[0] > 0 else LEAST
    return max(LEAST, np.float32(line[0] - line[1] * root - line[2] * abs(root)))


@inner
def _factors(metric: int, facts: Any, dimension: int, largest: float, unit: float, factors: Any) -> None:
    """What a row's terms are multiplied by; they are in units of the longest row, the last in its square.

    The last factor is what separates a low from the nearness it stands for.
    """
    length = unit / largest
    factors[0] = np.float32(facts[SCALE] / length)
    factors[1] = np.float32(facts[NORM] / length)
    factors[2] = np.float32(facts[ERROR] / length)
    # Never zero: it multiplies the infinities that mark rows.
    factors[3] = max(np.float32(largest / length), np.float32(1e-30))
    factors[4] = np.float32(facts[TAIL] / length)
    if facts[KIND] == KIND_BOUNDED:
        factors[5] = np.float32(2 * _slack(metric, facts, dimension, largest, unit))
    else:
        factors[5] = _ALL  # nothing is known of how near a row is to it at least


@inner
def ends(
    product: Any,
    row: int,
    terms: Any,
    scale: Any,
    norm_factor: Any,
    error: Any,
    weight: Any,
    tail: Any,
    slack: Any,
) -> Any:
    """The most and the least that a row's nearness is, by its product with the query and the query's factors."""
    blur = norm_factor * terms[1, row] + error * terms[2, row] + tail * terms[4, row]
    middle = product * scale * terms[0, row] + weight * terms[3, row]
    return middle + blur, middle - blur - slack if middle < _ALL else _NONE


@inner
def _sift(
    integers: int,
    scores: int,
    first: int,
    end: int,
    base: int,
    terms: Any,
    factors: Any,
    threshold: Any,
    rows: Any,
    highs: Any,
    lows: Any,
    count: int,
) -> Any:
    """Append the rows of [first, end) that may reach the threshold; returns how many candidates there are."""
    stride = np.int64(terms.shape[1] * 4)
    at = address_of(terms)
    scale, norm_factor, error = factors[0], factors[1], factors[2]
    weight, tail = factors[3], factors[4]
    for row in range(first, end, PANEL_ROWS):
        place = scores + (row - first) * 4
        if integers:
            passed = test_integers(
                place, at + row * 4, stride, scale, norm_factor, error, weight, tail, threshold
            )
        else:
            passed = test_floats(
                place, at + row * 4, stride, scale, norm_factor, error, weight, tail, threshold
            )
        while passed != 0:
            j = trailing_zeros(passed)
            passed &= passed - 1
            if integers:
                product = np.float32(carray(pointer_to(place, np.int32(0)), (PANEL_ROWS,))[j])
            else:
                product = carray(pointer_to(place, np.float32(0)), (PANEL_ROWS,))[j]
            high, low = ends(product, row + j, terms, scale, norm_factor, error, weight, tail, factors[5])
            rows[count] = base + row + j
            highs[count] = high
            lows[count] = low
            count += 1
    return count


@inner
def _refine(
    query: Any,
    codes: int,
    terms: Any,
    factors: Any,
    base: int,
    threshold: Any,
    rows: Any,
    highs: Any,
    lows: Any,
    first: int,
    count: int,
) -> Any:
    """Judge the candidates from `first` on by finer codes of all dimensions; returns how many are left."""
    width = query.shape[0]
    kept = first
    for i in range(first, count):
        if i + _CODES_AHEAD < count:
            at = codes + (rows[i + _CODES_AHEAD] - base) * width
            for offset in range(0, width, 64):
                prefetch(at + offset)
        row = rows[i] - base
        product = np.float32(multiply_bytes(address_of(query), codes + row * width, width))
        blur = factors[1] * terms[1, row] + factors[2] * terms[2, row]
        middle = product * factors[0] * terms[0, row] + factors[3] * terms[3, row]
        high = middle + blur
        if high >= threshold:
            rows[kept] = rows[i]
            highs[kept] = high
            lows[kept] = middle - blur - factors[5] if middle < _ALL else _NONE
            kept += 1
    return kept


@inner
def _count_reaching(values: Any, count: int, bound: Any) -> Any:
    reaching = 0
    for i in range(count):
        reaching += values[i] >= bound
    return reaching


@inner
def _reached_by(values: Any, count: int, k: int) -> Any:
    """A nearness that at least k of values[:count] reach, and hardly more: found by halving, as counting is quick."""
    low, high = np.float32(-2), np.float32(2)
    if _count_reaching(values, count, low) < k:
        return _NONE
    for _ in range(18):
        middle = np.float32(0.5) * (low + high)
        reaching = _count_reaching(values, count, middle)
        if reaching >= k:
            low = middle
            if reaching == k:
                break
        else:
            high = middle
    return low


@inner
def _keep(rows: Any, highs: Any, lows: Any, count: int, threshold: Any) -> Any:
    """Drop the candidates below a threshold; returns how many are left."""
    kept = 0
    for i in range(count):
        if highs[i] >= threshold:
            rows[kept] = rows[i]
            highs[kept] = highs[i]
            lows[kept] = lows[i]
            kept += 1
    return kept


@inner
def _bring_forward(rows: Any, highs: Any, lows: Any, count: int, k: int) -> Any:
    """Move the k candidates with the highest estimates, and hardly more, before the others; returns how many.

    The estimate, halfway between low and high, tells nothing for sure, but these are likely to be near.
    """
    low, high = np.float32(-4), np.float32(4)
    reaching = 0
    for _ in range(18):
        middle = np.float32(0.5) * (low + high)
        reaching = 0
        for i in range(count):
            reaching += highs[i] + lows[i] >= middle
        if reaching >= k:
            low = middle
            if reaching == k:
                break
        else:
            high = middle
    place = 0
    for i in range(count):
        if highs[i] + lows[i] >= low:
            rows[i], rows[place] = rows[place], rows[i]
            highs[i], highs[place] = highs[place], highs[i]
            lows[i], lows[place] = lows[place], lows[i]
            place += 1
    return place


@inner
def _without_first(rows: Any, highs: Any, lows: Any, first: int, count: int, threshold: Any) -> Any:
    """Drop the first candidates, and of the others those below a threshold; returns how many are left."""
    kept = 0
    for i in range(first, count):
        if highs[i] >= threshold:
            rows[kept] = rows[i]
            highs[kept] = highs[i]
            lows[kept] = lows[i]
            kept += 1
    return kept


@inner
def _place(address: int, stride: int, places: Any, row: int) -> Any:
    """Where a row stands as stored: one after another, or each at a place of its own."""
    if places.shape[0] > 0:
        return places[row]
    return address + row * stride


@inner
def measure(
    metric: int,
    query: Any,
    line: Any,
    code: int,
    address: int,
    stride: int,
    places: Any,
    row_ids: Any,
    threshold: Any,
    rows: Any,
    highs: Any,
    count: int,
    buffer: Any,
    distances: Any,
    ids: Any,
) -> Any:
    """Measure candidates and offer them to the heap; returns the new threshold."""
    dimension = query.shape[0]
    query_norm = norm(address_of(query), dimension)
    size = min(dimension * width_of(code), _AHEAD_BYTES)
    for i in range(count):
        ahead = i + _AHEAD
        if ahead < count and highs[ahead] >= threshold:
            for offset in range(0, size, 64):
                prefetch(_place(address, stride, places, rows[ahead]) + offset)
        if highs[i] < threshold:
            continue
        vector, single = as_floats(code, _place(address, stride, places, rows[i]), dimension, buffer)
        value = distance(metric, address_of(query), query_norm, vector, dimension, single)
        if value < np.inf and offer(distances, ids, value, row_ids[rows[i]]):
            threshold = max(threshold, _threshold(line, distances[0]))
    return threshold


@inner
def begin(
    metric: int,
    facts: Any,
    fine_facts: Any,
    dimension: int,
    largest: float,
    heap_distances: Any,
    lines: Any,
    factors: Any,
    fine_factors: Any,
    highs: Any,
    lows: Any,
    counts: Any,
    thresholds: Any,
    units: Any,
) -> None:
    """Set a group of queries up for a block, from the heaps so far and the candidates that wait.

    The latter were judged in units of the block that they came from, which was no longer than this one's.
    """
    for q in range(facts.shape[0]):
        _line(metric, facts[q], dimension, largest, lines[q])
        unit = _unit(facts[q], largest)
        _factors(metric, facts[q], dimension, largest, unit, factors[q])
        if fine_facts.shape[0] > 0:
            _factors(metric, fine_facts[q], dimension, largest, unit, fine_factors[q])
        from_heap = _threshold(lines[q], heap_distances[q, 0])
        if counts[q] == 0:
            thresholds[q] = from_heap
        elif units[q] != unit:
            ratio = units[q] / unit
            slack = factors[q, 5]
            for i in range(counts[q]):
                highs[q, i] = np.float32(highs[q, i] * ratio)
                lows[q, i] = np.float32(lows[q, i] * ratio) - slack
            if thresholds[q] > LEAST:
                thresholds[q] = np.float32(thresholds[q] * ratio) - slack
        thresholds[q] = max(thresholds[q], from_heap)
        units[q] = unit


@inner
def judge(
    waiting: int,
    base: int,
    metric: int,
    query: Any,
    query_address: int,
    query_code: int,
    code: int,
    address: int,
    stride: int,
    places: Any,
    row_ids: Any,
    fine_query: Any,
    fine_codes: int,
    fine_terms: Any,
    fine_factors: Any,
    line: Any,
    threshold: Any,
    rows: Any,
    highs: Any,
    lows: Any,
    count: int,
    buffer: Any,
    distances: Any,
    ids: Any,
    last: bool,
) -> Any:
    """Judge the candidates of one query from the place `waiting` on, which passed the test of a run of rows.

    Rows that the codes of the head let pass are judged by finer codes first, where there are any. Candidates wait, so
    that a threshold can form from their lows without measuring any. When there are some times k, those that are likely
    to be the nearest are measured, which rules most of the others out; all are measured after the last rows, or when
    the bound tells too many apart no further. `base` is added to a row to place it among all rows.

    Returns:
        the new threshold and number of waiting candidates.
    """
    k = distances.shape[0]
    if threshold == LEAST and count >= k:
        # The first rows: their likeliest give a threshold before the others are judged any closer.
        near = _bring_forward(rows, highs, lows, count, k)
        widen(query_code, query_address, query.shape[0], query, buffer)
        threshold = measure(
            metric,
            query,
            line,
            code,
            address,
            stride,
            places,
            row_ids,
            threshold,
            rows,
            highs,
            near,
            buffer,
            distances,
            ids,
        )
        count = _without_first(rows, highs, lows, near, count, threshold)
        waiting = 0
    if fine_query.shape[0] > 0:
        count = _refine(
            fine_query,
            fine_codes,
            fine_terms,
            fine_factors,
            base,
            threshold,
            rows,
            highs,
            lows,
            waiting,
            count,
        )
    limit = (rows.shape[0] - RUN) // 2
    many = min(limit, _MANY * k + _MANY_MORE)
    if count >= k and (last or count > many):
        threshold = max(threshold, _reached_by(lows, count, k))
        count = _keep(rows, highs, lows, count, threshold)
        near = _bring_forward(rows, highs, lows, count, k)
        widen(query_code, query_address, query.shape[0], query, buffer)
        threshold = measure(
            metric,
            query,
            line,
            code,
            address,
            stride,
            places,
            row_ids,
            threshold,
            rows,
            highs,
            near,
            buffer,
            distances,
            ids,
        )
        count = _without_first(rows, highs, lows, near, count, threshold)
    # Still that many: the bound tells these rows apart no further.
    if count > 0 and (last or count > many):
        widen(query_code, query_address, query.shape[0], query, buffer)
        threshold = measure(
            metric,
            query,
            line,
            code,
            address,
            stride,
            places,
            row_ids,
            threshold,
            rows,
            highs,
            count,
            buffer,
            distances,
            ids,
        )
        count = 0
    return threshold, count


@inner
def visit(
    integers: int,
    scores: int,
    first: int,
    end: int,
    base: int,
    metric: int,
    query: Any,
    query_address: int,
    query_code: int,
    code: int,
    address: int,
    stride: int,
    places: Any,
    row_ids: Any,
    terms: Any,
    fine_query: Any,
    fine_codes: int,
    fine_terms: Any,
    fine_factors: Any,
    line: Any,
    factors: Any,
    threshold: Any,
    rows: Any,
    highs: Any,
    lows: Any,
    count: int,
    buffer: Any,
    distances: Any,
    ids: Any,
    last: bool,
) -> Any:
    """Take one query past the products of a block's rows [first, end): `_sift`, then `judge`."""
    waiting = count
    count = _sift(integers, scores, first, end, base, terms, factors, threshold, rows, highs, lows, count)
    return judge(
        waiting,
        base,
        metric,
        query,
        query_address,
        query_code,
        code,
        address,
        stride,
        places,
        row_ids,
        fine_query,
        fine_codes,
        fine_terms,
        fine_factors,
        line,
        threshold,
        rows,
        highs,
        lows,
        count,
        buffer,
        distances,
        ids,
        last,
    )
