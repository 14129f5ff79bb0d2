"""A model-based simulation: several writers and readers, every operation, a store that fails, processes that die.

A failing seed is printed and replays: VECTORLAKE_SEED=… VECTORLAKE_STEPS=…; `make simulate` runs it for hours.
"""

from __future__ import annotations

import os
import random

import pytest
from world import World, replacements

STEPS = int(os.environ.get("VECTORLAKE_STEPS", "100"))
SEEDS: list[int | None] = [0, 1, 2, 5, 6, 7, 8, None]
"""Few that together do all operations, as the first ten do; None: a fresh seed."""
FORMATS = {0: "parquet", 1: "lance", 2: "vortex"}
"""Seeds that run with other formats than the one that users get for small writes, which is the quickest."""
SLOW = {1}
"""Seeds that run half as long."""


@pytest.mark.parametrize(
    "seed", SEEDS if "VECTORLAKE_SEED" not in os.environ else [int(os.environ["VECTORLAKE_SEED"])]
)
def test_every_commit_does_what_its_operation_meant(
    seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, replacement in replacements():
        monkeypatch.setattr(module, name, replacement)
    seed = random.SystemRandom().randrange(100, 2**32) if seed is None else seed
    print(f"replay with VECTORLAKE_SEED={seed} VECTORLAKE_STEPS={STEPS}")
    properties = {"write.scalar-format": FORMATS[seed]} if seed in FORMATS else {}
    world = World(seed, properties=properties)
    try:
        for number in range(STEPS // 2 if seed in SLOW else STEPS):
            world.step()
            if number % 25 == 24:
                world.quiet()
        world.quiet()
    except BaseException:
        print("\n".join(world.log[-60:]))
        raise
    finally:
        world.end()
