"""Float32 products and selection on a device that torch drives; what survives is measured on the CPU as ever.

Rows and queries are those of `paths.FloatPath`, and so is the bound: a float32 product of d elements, summed in any
order, fused or not, is off by at most d * 2**-24 of the product of the lengths (to first order; Higham, Accuracy and
Stability of Numerical Algorithms, 2002, §3.1), which is in the second term of every row. That needs true float32, so
formats with fewer bits, which torch may put in its place (TF32, bfloat16), are ruled out for the product, and a device
that takes them all the same is refused. The few operations after it are those that the slack of `select` covers.

torch is imported here alone, and when a device is asked for; the extra `gpu` brings it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.kernels.codes import RowCodes
from vectorlake.kernels.paths import Block, FloatPath, Parts, Task
from vectorlake.kernels.quantize import UNIT
from vectorlake.kernels.select import RUN
from vectorlake.kernels.survivors import measure_survivors, write_thresholds

_Tensor: TypeAlias = Any  # torch is not there where types are checked

_BLOCK_BYTES: Final = 64 << 20
"""How large a block of rows may be: it is copied to the device once."""
_BLOCK_ROWS: Final = 32768
_PAIRS: Final = 1 << 23
"""Products at a time. The device has some arrays of as many float32, and in the worst case all survive."""
_MANY: Final = 4
"""Survivors, per k, that are worth a better threshold."""

_TURN: Final = threading.Lock()
"""One group at a time is on the device: its memory is bounded, and torch's settings are those of the process."""


class GpuPath(FloatPath):
    """Float32 products on a device, and selection there: only survivors come back.

    Args:
        task: what all paths are given.
        device: torch's name for it, one that `check_device` passed.
    """

    def __init__(self, task: Task, device: str) -> None:
        super().__init__(task)
        self.device = device
        self.waiting = None  # all survivors of a block are measured after it
        rows = min(_BLOCK_ROWS, _BLOCK_BYTES // (self.padded * 4))
        self.block_rows = max(RUN, rows // RUN * RUN)
        self.group = max(1, _PAIRS // self.block_rows)
        self.there: tuple[_Tensor, _Tensor] | None = None

    def encode(self, block: Block, run: Callable[[Callable[[int, int], None], Parts], None]) -> None:
        super().encode(block, run)
        self._send()

    def adopt(self, block: Block, codes: RowCodes, places: npt.NDArray[np.int64]) -> None:
        super().adopt(block, codes, places)
        self._send()

    def _send(self) -> None:
        import torch

        count = self.terms.shape[1]
        vectors, terms = (
            torch.from_numpy(part).to(self.device) for part in (self.floats[:count], self.terms)
        )
        self.there = vectors, terms

    def search(self, first: int, end: int) -> None:
        asked, rows, group = self.task.queries, self.block.rows, end - first
        heaps = self.task.distances[first:end], self.task.row_ids[first:end]
        lines, factors = np.empty((group, 3)), np.empty((group, 6), np.float32)
        thresholds = np.empty(group, np.float32)
        facts = self.queries.facts[first:end]
        write_thresholds(
            self.metric, facts, rows.dimension, self.largest, heaps[0], lines, factors, thresholds
        )
        with _TURN:
            found, highs = self._survivors(self.queries.integers[first:end], factors, thresholds)
        measure_survivors(
            self.metric,
            rows.dimension,
            asked.code,
            asked.address + first * asked.stride,
            asked.stride,
            lines,
            thresholds,
            rows.code,
            rows.address,
            rows.stride,
            self.places,
            self.block.ids,
            np.searchsorted(found[:, 0], np.arange(group + 1)),
            found[:, 1] + self.block.first,
            highs,
            *heaps,
        )

    def _survivors(
        self,
        queries: npt.NDArray[np.float32],
        factors: npt.NDArray[np.float32],
        thresholds: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The pairs of query and row whose nearness may reach the threshold, in order, and the most that it can be.

        A threshold is raised to a nearness that k rows of the block reach at least, where too many reach the given one.
        """
        import torch

        assert self.there is not None
        vectors, (scales, errors, lengths, halves, tails) = self.there
        scale, norm, error, weight, tail, slack = torch.from_numpy(factors).to(self.device).T[:, :, None]
        least = torch.from_numpy(thresholds).to(self.device)[:, None]
        highs = multiplied(torch.from_numpy(queries).to(self.device), vectors)
        highs *= scale
        highs *= scales
        highs += weight * halves
        blur = norm * errors
        blur += error * lengths
        blur += tail * tails
        highs += blur
        passed = highs >= least
        k = self.task.distances.shape[1]
        if k <= highs.shape[1] and int(passed.sum()) > _MANY * k * len(queries):
            lows = torch.where(highs < torch.inf, highs - 2 * blur - slack, -torch.inf)
            # The one with the lowest low among the k is as near as that at least.
            least = torch.maximum(least, lows.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True))
            passed = highs >= least
        found: npt.NDArray[np.int64] = passed.nonzero().cpu().numpy()
        chosen: npt.NDArray[np.float32] = highs[passed].cpu().numpy()
        return found, chosen


@functools.cache
def check_device(device: str) -> None:
    """See that a device is there and multiplies float32 as the bound needs.

    Args:
        device: torch's name for it: `"cuda"`, `"cuda:1"`, `"cpu"`.

    Raises:
        InvalidInputError: no kind of device has that name.
        UnsupportedError: torch or the device is not there, or it has no true float32.
    """
    try:
        import torch
    except ImportError as e:
        raise UnsupportedError("a device needs torch: pip install 'vectorlake[gpu]'") from e
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as e:
        raise InvalidInputError(
            f"torch knows no device {device!r}: name one such as 'cuda' or 'cuda:1'"
        ) from e
    rng = np.random.default_rng(0)
    left, right = (rng.uniform(-1, 1, (count, 512)).astype(np.float32) for count in (96, 1024))
    try:
        with _TURN:
            products = (
                multiplied(*(torch.from_numpy(side).to(device) for side in (left, right))).cpu().numpy()
            )
    except (RuntimeError, AssertionError) as e:  # torch asserts that it was compiled for the device
        reason = str(e).partition("\n")[0]
        raise UnsupportedError(
            f"torch can't use the device {device!r} ({reason}): leave it out for the CPU"
        ) from e
    lengths = np.outer(*(np.linalg.norm(side.astype(np.float64), axis=1) for side in (left, right)))
    if not (np.abs(products - left.astype(np.float64) @ right.T) <= 512 * UNIT * lengths).all():
        raise UnsupportedError(
            f"the device {device!r} multiplies float32 with fewer bits (is NVIDIA_TF32_OVERRIDE set?): an exact search "
            "can't use it, leave it out for the CPU"
        )


def multiplied(queries: _Tensor, vectors: _Tensor) -> _Tensor:
    """Products [n, m] of float32 [n, d] and [m, d], in true float32 whatever the process has set."""
    import torch

    products = torch.empty((len(queries), len(vectors)), dtype=torch.float32, device=vectors.device)
    with _full_precision():
        # Given where to write, torch casts nothing, even where the caller is within an autocast.
        torch.mm(queries, vectors.T, out=products)
    return products


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Have float32 multiplied as float32, and leave the process's settings as they were."""
    import torch

    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    settings = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    if not settings:  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    # Only what asks for less is touched: newer settings don't mix with older ones.
    changed = [(s, s.fp32_precision) for s in settings if s.fp32_precision not in ("ieee", "none")]
    try:
        for setting, _ in changed:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, given in changed:
            setting.fp32_precision = given
