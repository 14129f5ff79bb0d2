"""Which path is the fastest that this CPU runs."""

from __future__ import annotations

import functools
from typing import Final

from vectorlake.errors import UnsupportedError
from vectorlake.kernels.metric import Path

FEW_QUERIES: Final = 4
"""Up to this many, measuring every row takes no longer than reading it."""

# numkong's names for units that multiply int8 faster than AVX2's pairs do.
_WIDE_UNITS: Final = (
    "sapphireamx",
    "graniteamx",
    "icelake",
    "genoa",
    "alder",
    "sierra",
    "neonsdot",
    "svesdot",
    "sme",
)


def best_path(path: Path, *, queries: int) -> Path:
    """Settle AUTO.

    Args:
        path: what was asked for.
        queries: how many there are.

    Raises:
        UnsupportedError: the path asked for needs instructions that this CPU lacks.
    """
    if path is Path.AVX2 and not has_avx2():
        raise UnsupportedError("this CPU has no AVX2: let the path be AUTO")
    if path is not Path.AUTO:
        return path
    if queries <= FEW_QUERIES:
        return Path.DIRECT
    if _has_wide_units():
        return Path.NUMKONG
    return Path.AVX2 if has_avx2() else Path.FLOAT


@functools.cache
def has_avx2() -> bool:
    """Whether this CPU has AVX2."""
    import llvmlite.binding

    features: dict[str, bool] = llvmlite.binding.get_host_cpu_features()
    return bool(features.get("avx2"))


@functools.cache
def has_quick_halves() -> bool:
    """Whether this CPU widens float16 and multiplies and adds float32 by eight (F16C, FMA; with AVX2)."""
    import llvmlite.binding

    features: dict[str, bool] = llvmlite.binding.get_host_cpu_features()
    return has_avx2() and bool(features.get("f16c")) and bool(features.get("fma"))


@functools.cache
def _has_wide_units() -> bool:
    import numkong

    found: dict[str, bool] = numkong.get_capabilities()
    return any(found.get(unit) for unit in _WIDE_UNITS)
