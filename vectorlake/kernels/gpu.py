"""Float32 products and selection on a device that torch drives; what survives is measured on the CPU as ever.

Rows and queries are those of `paths.FloatPath`, and so is the bound: a float32 product of d elements, summed in any
order, fused or not, is off by at most d * 2**-24 of the product of the lengths (to first order; Higham, Accuracy and
Stability of Numerical Algorithms, 2002, §3.1), which is in the second term of every row. That needs true float32, so
formats with fewer bits, which torch may put in its place (TF32, bfloat16), are ruled out for the product, and a device
that takes them all the same is refused.

A pass over the products takes a device about as long as it takes to write them, so the test of `select` is one
comparison here. Its sum is the product itself: a row's elements are multiplied by its scale first and a query's by its
own, which rounds each element once more, and the term of the row's square is one element more, met by its factor. That
sum of d + 1 products may lose as much of the lengths' product as the second term allows for (d + 24 units of 2**-24),
and as many units of the term of the square; the latter are added. The bounds of the block's worst row stand for those of
each row, so that they are known before anything is multiplied. For true float32 they are hardly larger than the slack of
`select`, which covers the few operations that are left, and elements too small for float32 once they are multiplied.

torch is imported here alone, and when a device is asked for; the extra `gpu` brings it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError, UnsupportedError
from vectorlake.kernels.codes import RowCodes
from vectorlake.kernels.microkernel import PANEL_ROWS
from vectorlake.kernels.paths import Block, FloatPath, Parts, Run, Task
from vectorlake.kernels.quantize import UNIT
from vectorlake.kernels.select import LEAST, RUN
from vectorlake.kernels.survivors import measure_survivors, write_thresholds

_Tensor: TypeAlias = Any  # torch is not there where types are checked

_BLOCK_BYTES: Final = 192 << 20
"""How large a block of rows may be: it is copied to the device once."""
_BLOCK_ROWS: Final = 131_072
"""The more, the less often threads are called together, which takes a millisecond where there are many."""
_PART: Final = 4096
"""Rows that one thread encodes at a time, and sends off."""
_PAIRS: Final = 1 << 27
"""Products at a time: as many float32 on the device."""
_CHUNK: Final = 32
"""Rows that are compared by the nearest of them first."""
_CHUNKS: Final = 1 << 17
"""Chunks of which all rows are compared at a time: so many are left only where the bound tells little apart."""
_SURVIVORS: Final = 1 << 21
"""Survivors that wait for others before they are measured."""
_MANY: Final = 4
"""Chunks with survivors, per k, that are worth a better threshold."""
_FEW: Final = 8
"""Chunks, per k, of which the nearest rows give one that is nearly as good as that of all rows."""

_TURN: Final = threading.Lock()
"""One product at a time is asked for: torch's settings are those of the process."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """A block on the device.

    Attributes:
        vectors: float32 [m, width], each row in units of the longest, then the term of its square, then zeros; m is a
            multiple of `_CHUNK`.
        worst: float64 [4], the most that each of these is of a row: what is lost of it; its length; its tail; what a sum
            may lose of the term of its square.
    """

    vectors: _Tensor
    worst: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """Some queries whose nearness to a block's rows the device computes, or has computed.

    Row i is in chunk i mod the number of chunks: rows that follow each other are often alike, and may all be near.

    Attributes:
        first: the first of the queries.
        middles: float32 [g, m], how near each row is as computed; it is so but for `blurs`.
        peaks: float32 [g, chunks], the largest of each chunk.
        floors: float32 [g], a row whose middle is less is passed over.
        blurs: float32 [g].
        slacks: float32 [g], what arithmetic may lose besides.
        raised: whether the floors are those that the block's own rows give.
    """

    first: int
    middles: _Tensor
    peaks: _Tensor
    floors: _Tensor
    blurs: _Tensor
    slacks: _Tensor
    raised: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """Survivors of some queries.

    Attributes:
        pairs: int64 [2, survivors], in order: the query, and which row of the call it is.
        highs: float32 [survivors], the most that their nearness is.
    """

    pairs: npt.NDArray[np.int64]
    highs: npt.NDArray[np.float32]


class GpuPath(FloatPath):
    """Float32 products on a device, and selection there: only survivors come back.

    Args:
        task: what all paths are given.
        device: torch's name for it, one that `check_device` passed.
    """

    part_rows = _PART
    group = 1 << 30  # as many groups as threads: what is on the device at a time is another matter

    def __init__(self, task: Task, device: str) -> None:
        import torch

        super().__init__(task)
        self.device = device
        self.pinned = torch.device(device).type == "cuda"
        self.waiting = None  # all survivors of a block are measured after it
        rows = min(_BLOCK_ROWS, _BLOCK_BYTES // (self.padded * 4))
        self.block_rows = max(RUN, rows // RUN * RUN)
        self.kept = task.frame.kept
        self.asked = torch.zeros((task.queries.count, self.kept // 4 * 4 + 4), device=device)
        self.asked[:, : self.kept] = torch.from_numpy(self.queries.integers[:, : self.kept]).to(device)
        self.lines = np.empty((task.queries.count, 3))
        self.thresholds = np.empty(task.queries.count, np.float32)
        self.staged: _Tensor = torch.empty((0, self.padded), device=device)
        self.there: _Rows | None = None

    def encode(self, block: Block, run: Run) -> None:
        places = -(-block.count // PANEL_ROWS) * PANEL_ROWS
        if self.pinned and len(self.staged) < places:
            import torch

            # Whatever was there before, `_arrange` lets in only what is encoded.
            self.floats = torch.empty((places, self.padded), pin_memory=True).numpy()
            self.staged = torch.empty((places, self.padded), device=self.device)
        super().encode(block, run)
        self._arrange(self.staged[:places] if self.pinned else self._sent())

    def _encode(self, start: int, end: int) -> None:
        import torch

        super()._encode(start, end)
        if self.pinned:
            # Nothing is written there again before the survivors are back, and they are computed from the copy.
            self.staged[start:end].copy_(torch.from_numpy(self.floats[start:end]), non_blocking=True)

    def adopt(self, block: Block, codes: RowCodes, places: npt.NDArray[np.int64], run: Run) -> None:
        super().adopt(block, codes, places, run)
        self._arrange(self._sent())

    def _sent(self) -> _Tensor:
        """The elements of the block's rows as encoded, on the device."""
        import torch

        return torch.from_numpy(self.floats[: self.terms.shape[1]]).to(self.device)

    def _arrange(self, floats: _Tensor) -> None:
        """Have the block's rows as `_Rows` says; takes their elements as encoded, on the device."""
        import torch

        scales, errors, lengths, halves, tails = self.terms
        count = len(scales)
        scale, half = torch.from_numpy(np.stack([scales, halves])).to(self.device)
        vectors = torch.zeros((-(-count // _CHUNK) * _CHUNK, self.asked.shape[1]), device=self.device)
        torch.mul(floats[:, : self.kept], scale[:, None], out=vectors[:count, : self.kept])
        vectors[:count].masked_fill_((scale == 0)[:, None], 0)
        vectors[:count, self.kept] = half
        vectors[count:, self.kept] = -torch.inf
        deepest = -float(halves.min(where=halves > -np.inf, initial=0))
        lost = (self.kept + 24) * UNIT * deepest
        worst = np.array([errors.max(), lengths.max(), tails.max(), lost], np.float64)
        self.there = _Rows(vectors, worst)

    def search_all(self, run: Run, groups: Parts) -> None:
        waiting: list[_Found] = []
        for found in self._survivors():
            waiting.append(found)
            if sum(len(some.highs) for some in waiting) > _SURVIVORS:
                self._measure_all(run, groups, waiting)
                waiting = []
        if waiting:
            self._measure_all(run, groups, waiting)

    def _survivors(self) -> Iterator[_Found]:
        """The survivors of some queries after another; while the host looks at them, the device is at the next."""
        assert self.there is not None
        count, at_once = self.task.queries.count, max(1, _PAIRS // len(self.there.vectors))
        launched: collections.deque[_Asked] = collections.deque()
        for first in range(0, count, at_once):
            end = min(first + at_once, count)
            told, unknown = self._tell(first, end)
            found = list(self._collect(launched.popleft())) if launched else []
            launched.append(self._launch(first, end, told, unknown))
            yield from found
        yield from self._collect(launched.popleft())

    def _tell(self, first: int, end: int) -> tuple[_Tensor, bool]:
        """Send the device what decides which rows survive.

        Returns:
            float32 [5, g]: what a product is multiplied by, what the term of a square is, then the floors, blurs and slacks
            of `_Asked`; and whether there is a query of which nothing is known yet, so that all rows pass.
        """
        import torch

        assert self.there is not None
        part = slice(first, end)
        factors, thresholds = np.empty((end - first, 6), np.float32), self.thresholds[part]
        write_thresholds(
            self.metric,
            self.queries.facts[part],
            self.task.queries.dimension,
            self.largest,
            self.task.distances[part],
            self.lines[part],
            factors,
            thresholds,
        )
        scale, _, _, weight, _, slack = factors.T
        blur = (factors[:, [1, 2, 4, 3]].astype(np.float64) @ self.there.worst).astype(np.float32)
        # Rows that must not match lie below even where everything else passes.
        floor = np.maximum(thresholds - blur, LEAST)
        told = torch.from_numpy(np.stack([scale, weight, floor, blur, slack])).to(self.device)
        return told, bool(thresholds.min() == LEAST)

    def _launch(self, first: int, end: int, told: _Tensor, unknown: bool) -> _Asked:
        """Have the device multiply; nothing waits for it."""
        assert self.there is not None
        scales, weights, floors, blurs, slacks = told
        queries = self.asked[first:end] * scales[:, None]
        queries[:, self.kept] = weights
        middles = multiplied(queries, self.there.vectors)
        peaks = middles.unflatten(1, (_CHUNK, -1)).amax(dim=1)
        asked = _Asked(first, middles, peaks, floors, blurs, slacks)
        return self._raised(asked) if unknown else asked

    def _raised(self, asked: _Asked) -> _Asked:
        """The same with floors that only rows reach that may be as near as k rows of the block are for sure."""
        import torch

        k = self.task.distances.shape[1]
        near = asked.peaks if asked.peaks.shape[1] >= _FEW * k else asked.middles
        if near.shape[1] < k:
            return dataclasses.replace(asked, raised=True)
        # How near such a row is at least, nothing tells.
        known = near.masked_fill(near == torch.inf, -torch.inf)
        lowest = known.topk(k, dim=1, sorted=False).values.amin(dim=1)
        floors = torch.maximum(asked.floors, lowest - 2 * asked.blurs - asked.slacks)
        return dataclasses.replace(asked, floors=floors, raised=True)

    def _collect(self, asked: _Asked) -> Iterator[_Found]:
        """Wait for the survivors of some queries."""
        import torch

        k = self.task.distances.shape[1]
        chunks = (asked.peaks >= asked.floors[:, None]).nonzero()
        if not asked.raised and len(chunks) > _MANY * k * len(asked.floors):
            asked = self._raised(asked)
            chunks = (asked.peaks >= asked.floors[:, None]).nonzero()
        members = asked.middles.unflatten(1, (_CHUNK, -1))
        for some in chunks.split(_CHUNKS):
            query, chunk = some.T
            near = members[query, :, chunk]
            which, member = (near >= asked.floors[query, None]).nonzero().T
            query, row = query[which], member * members.shape[2] + chunk[which]
            pairs = torch.stack([query + asked.first, row + self.block.first])
            highs = near[which, member] + asked.blurs[query]
            yield _Found(pairs.cpu().numpy(), highs.cpu().numpy())

    def _measure_all(self, run: Run, groups: Parts, found: Sequence[_Found]) -> None:
        queries, rows = np.concatenate([some.pairs for some in found], axis=1)
        highs = np.concatenate([some.highs for some in found])
        bounds = np.searchsorted(queries, np.arange(self.task.queries.count + 1))
        run(functools.partial(self._measure, bounds, rows, highs), groups)

    def _measure(
        self,
        bounds: npt.NDArray[np.int64],
        survivors: npt.NDArray[np.int64],
        highs: npt.NDArray[np.float32],
        first: int,
        end: int,
    ) -> None:
        asked, rows = self.task.queries, self.block.rows
        measure_survivors(
            self.metric,
            rows.dimension,
            asked.code,
            asked.address + first * asked.stride,
            asked.stride,
            self.lines[first:end],
            self.thresholds[first:end],
            rows.code,
            rows.address,
            rows.stride,
            self.places,
            self.block.ids,
            bounds[first : end + 1],
            survivors,
            highs,
            self.task.distances[first:end],
            self.task.row_ids[first:end],
        )


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
        products = multiplied(*(torch.from_numpy(side).to(device) for side in (left, right))).cpu().numpy()
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
    with _TURN, _full_precision():
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
