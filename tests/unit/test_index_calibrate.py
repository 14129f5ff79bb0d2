"""Calibration counts what is found as plain loops would."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vectorlake.index import calibrate
from vectorlake.index.protocol import Nominated

HUGE = np.iinfo(np.int64).max


@pytest.mark.parametrize("seed", range(20))
def test_places_and_recall_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, queries, pool = int(rng.integers(15, 60)), int(rng.integers(1, 6)), int(rng.integers(1, 15))
    row_ids = rng.permutation(100)[:count].astype(np.int64)
    row_ids[rng.random(count) < 0.1] = -1
    slots = np.stack([rng.permutation(count)[:pool] for _ in range(queries)])
    slots[(rng.random(slots.shape) < 0.1) | (row_ids[slots] < 0)] = -1
    estimates = np.where(slots < 0, np.inf, rng.integers(0, 5, slots.shape)).astype(np.float32)
    truth = np.stack([rng.permutation(100)[: calibrate.K + 1] for _ in range(queries)])
    truth[rng.random(truth.shape) < 0.2] = -1
    own = rng.integers(0, count, queries)

    right = calibrate._slots_of(truth, row_ids)
    ranks = calibrate._ranks_of(Nominated(slots, estimates, 0, 0), own, right, count)

    shares = []
    for query in range(queries):
        ranked = sorted(
            (math.inf if slot == own[query] else float(estimates[query, at]), at, int(slot))
            for at, slot in enumerate(slots[query])
        )
        place = {int(row_ids[slot]): at for at, (_, _, slot) in enumerate(ranked) if slot >= 0}
        expected = [place.get(row, HUGE) if row >= 0 else HUGE for row in truth[query].tolist()]
        assert ranks[query].tolist() == expected
        known = [at for at, row in zip(expected, truth[query], strict=True) if row >= 0][: calibrate.K]
        shares += [float(np.mean([at < pool // 2 for at in known]))] if known else []
    told = calibrate._recall(ranks, pool // 2, truth)
    surely = np.mean(shares) - calibrate._SURELY * np.std(shares) / math.sqrt(len(shares))
    assert told == pytest.approx(max(0.0, surely))


def test_recall_is_whole_where_nothing_is_to_be_found() -> None:
    nothing = np.full((3, calibrate.K + 1), -1)
    assert calibrate._recall(np.full(nothing.shape, HUGE), 10, nothing) == 1.0
