"""A model-based simulation: several writers and readers, every operation, a store that fails, writers that die.

A failing seed is printed and replays: VECTORLAKE_SEED=…; VECTORLAKE_STEPS=… runs longer, and `make simulate` for hours.
"""

from __future__ import annotations

import os
import random

import pytest
from world import World, inline_threads

STEPS = int(os.environ.get("VECTORLAKE_STEPS", "60"))
SEEDS: list[int | None] = [*range(40), None]
"""None: a fresh seed."""
DEFAULT_FORMATS = (0, 1)
"""Seeds that run with the formats that users get, which are slower to begin."""


@pytest.mark.parametrize(
    "seed", SEEDS if "VECTORLAKE_SEED" not in os.environ else [int(os.environ["VECTORLAKE_SEED"])]
)
def test_every_commit_does_what_its_operation_meant(
    seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, inline in inline_threads():
        monkeypatch.setattr(module, name, inline)
    seed = random.SystemRandom().randrange(100, 2**32) if seed is None else seed
    print(f"replay with VECTORLAKE_SEED={seed} VECTORLAKE_STEPS={STEPS}")
    world = World(seed, properties={} if seed in DEFAULT_FORMATS else None)
    try:
        for number in range(STEPS):
            world.step()
            if number % 25 == 24:
                world.quiet()
        world.quiet()
    except BaseException:
        print("\n".join(world.log[-40:]))
        raise
