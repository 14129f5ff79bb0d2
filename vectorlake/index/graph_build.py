"""Build a graph over vectors rounded to bytes: near ones by leaves, then by searching the graph itself, then edges.

A first graph joins what is near within small overlapping leaves (as PiPNN and HCNNG do); searching it for each of its own
vertices then finds better neighbours than leaves could hold, as in SymphonyQG and Vamana. Edges are kept by the rule of
relative neighbourhood, both ways; places that are left go to those that a looser rule keeps, for a visit compares as many
neighbours as there are places. Rows equal to others, and those that no edge leads to, become guests of a vertex, so that
nothing is out of reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError
from vectorlake.index.graph_slack import POOL, Outcome, measure_slacks
from vectorlake.kernels.codes import aligned_empty, aligned_zeros
from vectorlake.kernels.counter import counter
from vectorlake.kernels.distance import METRIC_DOT, METRIC_L2
from vectorlake.kernels.graph import beam, construct
from vectorlake.kernels.graph.record import DEGREE, ROOT_BLOCKS, UNUSABLE, Layout
from vectorlake.kernels.team import Team

Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

LIST: Final = 24
"""How many near ones leaves tell of each vertex."""
_LEAF: Final = 700
_OVERLAP: Final = 3
_LEADERS: Final = 256
_DEPTH: Final = 6
_STEP: Final = 1024
_CHUNK: Final = 8192
_BACK: Final = DEGREE
_FACTS: Final = 16
_NOBODY: Final = np.empty(0, np.int64)

_SLACKS: Final = np.array([1, 1.1, 1.2, 1.35, 1.5, 2, 4, np.inf], np.float32)
"""By how much the rule of relative neighbourhood is loosened, step by step, until a vertex has all its edges."""

BYTES_PER_ROW: Final = LIST * 8 + DEGREE * 8 + DEGREE * 4 + 64
"""What building takes besides the result, at least."""


@dataclass(frozen=True)
class Plan:
    """How to build.

    Attributes:
        code: one of `kernels.distance`'s metrics, for which searches are going to be.
        width: of the beam by which neighbours are found at last.
        rounds: how often the graph is searched for better neighbours.
        visits: share of its beam that a search visits in the mean, where that finds more than visiting all of a smaller one.
    """

    code: int
    width: int
    rounds: int
    visits: float

    def width_of(self, round_: int) -> int:
        """Of the beam in a round; only the last has to find all that edges are chosen from."""
        return self.width if round_ == self.rounds else max(DEGREE, self.width // 3)


@dataclass(frozen=True)
class Graph:
    """What a segment stores besides its row ids."""

    records: Bytes
    roots: Bytes
    guests: Slots
    slacks: Floats


def build_graph(
    stored: Iterable[Bytes], rows: int, layout: Layout, plan: Plan, *, threads: int, memory: int
) -> Graph:
    """Build the graph of vectors as records hold them.

    Args:
        stored: uint8 [m, padded + 16] each, vector and facts; `rows` in all.
        rows: how many there are.
        layout: sizes.
        plan: how.
        threads: how many may work.
        memory: bytes that it may take besides the result.

    Raises:
        InvalidInputError: the memory is too little.
    """
    needed = rows * BYTES_PER_ROW + (32 << 20)
    if needed > memory:
        raise InvalidInputError(
            f"a graph of {rows:,} rows needs about {needed >> 20} MiB to be built, and may take {memory >> 20} MiB: "
            "raise memory_limit, or choose kind 'ivf'"
        )
    records = aligned_empty(rows, layout.record)
    records.fill(0)
    place = 0
    for part in stored:
        records[place : place + len(part), layout.vector : layout.vector + part.shape[1]] = part
        place += len(part)
    return _Building(records, layout, plan, Team(threads), memory).graph()


class _Building:
    """One graph in the making."""

    def __init__(self, records: Bytes, layout: Layout, plan: Plan, team: Team, memory: int) -> None:
        self._records = records
        self._layout = layout
        self._plan = plan
        self._team = team
        self._memory = memory
        self._at = (records.ctypes.data, layout.record, layout.padded)
        self._rng = np.random.default_rng(0)
        facts = records[:, layout.vector + layout.padded : layout.vector + layout.padded + _FACTS]
        self._squares: Floats = np.ascontiguousarray(facts[:, 4:8]).view(np.float32)[:, 0]
        self._heights = np.zeros(len(records), np.float32)
        if plan.code == METRIC_DOT and len(records):
            self._heights = np.sqrt(np.maximum(self._squares.max() - self._squares, 0))
        facts[:, 8:12] = self._heights[:, None].view(np.uint8)
        # Vectors of an earlier graph tell of its guests, and searches for neighbours would look for them here.
        self._tell_guests(slice(None), np.full(1, -1, np.int32))
        self._host_of = self._duplicates()
        self._vertices: Ints = np.flatnonzero(
            (self._squares != UNUSABLE) & (self._host_of == np.arange(len(records)))
        )

    def graph(self) -> Graph:
        """All of it."""
        starts = self._starts()
        linked = np.full((len(self._records), DEGREE), -1, np.int32)
        if len(self._vertices) > 1:
            near, distances = self._near_by_leaves()
            kept = np.full((len(self._records), DEGREE), -1, np.int32)
            kept_distances = np.full(kept.shape, np.inf, np.float32)
            for round_ in range(self._plan.rounds + 1):
                for first in range(0, len(self._vertices), _CHUNK):
                    self._choose(first, round_, starts, near, distances, kept, kept_distances)
                self._link(kept, kept_distances, near, distances, linked)
                last = round_ == self._plan.rounds
                self._encode(linked, self._plan.code if last else METRIC_L2)
        guests = self._house(linked, starts)
        roots = self._roots(starts, self._plan.code)
        return Graph(self._records, roots, guests, self._slacks(roots, guests))

    def _slacks(self, roots: Bytes, guests: Slots) -> Floats:
        """Where searches of this graph may end, as measured with some of its vertices."""
        code = self._plan.code
        longest = longest_of(self._squares) if code == METRIC_DOT else 0.0

        def search(some: Ints, width: int, slack: float) -> Outcome:
            end = slack, longest
            found, _, visits = self._beam(code, roots, guests, some, width, POOL, omitted=some, end=end)
            return Outcome(float(visits.mean()), found)

        return measure_slacks(search, self._rng.permutation(self._vertices), self._plan.visits)

    def _duplicates(self) -> Ints:
        """For each slot the first of those equal to it."""
        digests = np.empty(len(self._records), np.int64)
        self._team.share(lambda a, b: construct.digest_rows(*self._at, a, b, digests), len(digests), _STEP)
        _, firsts, which = np.unique(digests, return_index=True, return_inverse=True)
        hosts: Ints = firsts[which]
        return hosts

    def _starts(self) -> Slots:
        """int32 [blocks, DEGREE], where searches begin; -1 where there are fewer vertices."""
        wanted = min(ROOT_BLOCKS * DEGREE, len(self._vertices))
        starts = np.full(max(1, -(-wanted // DEGREE)) * DEGREE, -1, np.int32)
        starts[:wanted] = np.sort(self._rng.choice(self._vertices, wanted, replace=False)) if wanted else 0
        return starts.reshape(-1, DEGREE)

    def _roots(self, starts: Slots, code: int) -> Bytes:
        roots = aligned_zeros(len(starts), self._layout.root)
        construct.encode_roots(*self._at, code, starts, roots.ctypes.data)
        return roots

    def _decode(self, slots: Ints) -> Floats:
        out = np.empty((len(slots), self._layout.padded), np.float32)
        self._team.share(
            lambda a, b: construct.decode_rows(self._at[0], self._at[1], a, b, slots, out), len(slots), _STEP
        )
        return out

    def _leaves(self, members: Ints, overlap: int, depth: int = 0) -> Iterator[Ints]:
        """Cut vertices into groups of those near one of some leaders, each in `overlap` groups, and these again."""
        if len(members) <= 2 * _LEAF:
            yield members
            return
        if depth == _DEPTH:
            yield from np.array_split(members, -(-len(members) // _LEAF))
            return
        count = min(_LEADERS, -(-len(members) * overlap // _LEAF))
        leaders = np.sort(self._rng.choice(members, count, replace=False))
        centres, squares = self._decode(leaders), self._squares[leaders]
        heights = self._heights[leaders]
        owners = np.empty((len(members), overlap), np.int16)
        for first in range(0, len(members), _CHUNK):
            part = members[first : first + _CHUNK]
            scores = squares - 2 * (self._decode(part) @ centres.T)
            if self._plan.code == METRIC_DOT:
                scores += np.square(self._heights[part][:, None] - heights)
            owners[first : first + _CHUNK] = np.argpartition(scores, overlap - 1, axis=1)[:, :overlap]
        order = np.argsort(owners.ravel(), kind="stable")
        bounds = np.searchsorted(owners.ravel()[order], np.arange(count + 1))
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if b - a > 1:
                yield from self._leaves(members[order[a:b] // overlap], 1, depth + 1)

    def _near_by_leaves(self) -> tuple[Slots, Floats]:
        """Slots int32 [rows, LIST] near each vertex, and their distances, sorted."""
        near = np.full((len(self._records), LIST), -1, np.int32)
        distances = np.full(near.shape, np.inf, np.float32)
        for members in self._leaves(self._vertices, _OVERLAP):
            stored = vectors_of(self._records, self._layout)[members]
            facts = np.ascontiguousarray(stored[:, -_FACTS:-4].copy().view(np.float32).T)
            vectors = np.zeros((len(members) + construct.GROUP - 1, self._layout.padded), np.int16)
            vectors[: len(members)] = stored[:, :-_FACTS].view(np.int8)
            self._team.share(
                partial(
                    self._merge_leaf,
                    vectors=vectors,
                    facts=facts,
                    members=members,
                    near=near,
                    distances=distances,
                ),
                len(members),
                _STEP,
            )
        return near, distances

    def _merge_leaf(
        self,
        first: int,
        end: int,
        *,
        vectors: npt.NDArray[np.int16],
        facts: Floats,
        members: Ints,
        near: Slots,
        distances: Floats,
    ) -> None:
        construct.merge_leaf(vectors, facts, members, first, end, near, distances)

    def _choose(
        self,
        first: int,
        round_: int,
        starts: Slots,
        near: Slots,
        distances: Floats,
        kept: Slots,
        kept_distances: Floats,
    ) -> None:
        """Choose the edges that a chunk of vertices would have: in the first round from leaves, then by searching."""
        chunk = self._vertices[first : first + _CHUNK]
        found = np.empty((len(chunk), 0), np.int64)
        measured = np.empty((len(chunk), 0), np.float32)
        if round_:
            found, measured = self._search(chunk, starts, self._plan.width_of(round_))
        self._team.share(
            lambda a, b: construct.prune_found(
                *self._at,
                found,
                measured,
                chunk,
                a,
                b,
                near,
                distances,
                _SLACKS,
                kept,
                kept_distances,
            ),
            len(chunk),
            _STEP,
        )

    def _search(self, vertices: Ints, starts: Slots, width: int) -> tuple[Ints, Floats]:
        """Slots near each of some vertices, itself among them: int64 [m, width], and their distances."""
        roots = self._roots(starts, METRIC_L2)
        found, measured, _ = self._beam(METRIC_L2, roots, None, vertices, width, width)
        return found, measured

    def _beam(
        self,
        code: int,
        roots: Bytes,
        guests: Slots | None,
        vertices: Ints,
        width: int,
        pool: int,
        *,
        omitted: Ints = _NOBODY,
        end: tuple[float, float] = (np.inf, 0.0),
    ) -> tuple[Ints, Floats, Ints]:
        """Search the graph as it stands for some of its vertices; what it is given is as `beam.search_beam` takes it, `end`
        the slack and the length of the longest vector. Slots and distances [m, pool], and visits [m]."""
        found = np.empty((len(vertices), pool), np.int64)
        measured = np.empty(found.shape, np.float32)
        counts = np.empty((2, len(vertices)), np.int64)
        graph = (
            *self._at[:2], len(self._records), roots.ctypes.data, len(roots),
            0 if guests is None else guests.ctypes.data, code,
        )  # fmt: skip
        nothing = np.empty((0, self._layout.dimension), np.float32)
        space = np.zeros(self._layout.dimension, np.float32), np.zeros((1, self._layout.padded), np.int8)
        turn = counter()
        self._team.together(
            lambda: beam.search_beam(
                *graph, nothing, vertices, turn, len(vertices), *space, beam.LANES, width, pool, 0, omitted, 1.0, *end,
                found, measured, counts[0], counts[1],
            )
        )  # fmt: skip
        return found, measured, counts[0]

    def _link(
        self, kept: Slots, kept_distances: Floats, near: Slots, distances: Floats, linked: Slots
    ) -> None:
        """Add edges back, and choose among both."""
        spare = max(self._memory - len(self._records) * BYTES_PER_ROW, 16 << 20)
        step = max(_CHUNK, spare // (_BACK * 8))
        for first in range(0, len(self._records), step):
            end = min(first + step, len(self._records))
            back = np.empty((end - first, _BACK), np.int32)
            back_distances = np.empty(back.shape, np.float32)
            construct.reverse_edges(kept, kept_distances, self._vertices, first, back, back_distances)
            low, high = np.searchsorted(self._vertices, [first, end])
            some = self._vertices[low:high]
            self._team.share(
                lambda a, b, part=(some, back, back_distances, first): construct.link(  # type: ignore[misc]
                    *self._at,
                    part[0],
                    a,
                    b,
                    kept,
                    kept_distances,
                    part[3],
                    part[1],
                    part[2],
                    near,
                    distances,
                    _SLACKS,
                    linked,
                ),
                len(some),
                _STEP,
            )

    def _encode(self, linked: Slots, code: int) -> None:
        self._team.share(
            lambda a, b: construct.encode_vertices(*self._at, code, linked, self._vertices, a, b),
            len(self._vertices),
            _STEP,
        )

    def _house(self, linked: Slots, starts: Slots) -> Slots:
        """Give every row that no edge leads to a host, write in records where guests begin, and return the runs."""
        reached = np.zeros(len(self._records), np.bool_)
        if len(self._vertices):
            construct.reach(linked, starts.ravel(), reached)
        lost = self._vertices[~reached[self._vertices]]
        hosts = self._host_of.copy()
        for first in range(0, len(lost), _CHUNK):
            chunk = lost[first : first + _CHUNK]
            found, _ = self._search(chunk, starts, 64)
            good = (found >= 0) & reached[np.maximum(found, 0)]
            nearest = np.take_along_axis(found, good.argmax(axis=1)[:, None], axis=1)[:, 0]
            hosts[chunk] = np.where(good.any(axis=1), nearest, starts[0, 0])
        hosts = hosts[hosts]  # a duplicate of a guest goes where that goes
        rows = np.arange(len(hosts))
        away = np.flatnonzero((hosts != rows) & (self._squares != UNUSABLE))
        # Those that differ from their host come first: of duplicates only as many are measured as are wanted.
        order = np.lexsort((away, self._host_of[away] != away, hosts[away]))
        return self._runs(away[order], hosts[away[order]])

    def _runs(self, guests: Ints, hosts: Ints) -> Slots:
        owners, firsts, counts = np.unique(hosts, return_index=True, return_counts=True)
        heads = firsts + np.arange(len(owners))
        runs = np.empty(len(guests) + len(owners), np.int32)
        runs[heads] = counts
        runs[np.delete(np.arange(len(runs)), heads)] = guests
        self._tell_guests(owners, heads.astype(np.int32))
        return runs

    def _tell_guests(self, slots: Ints | slice, places: Slots) -> None:
        """Write into records where their guests begin; -1 where there are none."""
        start = self._layout.vector + self._layout.padded + 12
        self._records[slots, start : start + 4] = places[:, None].view(np.uint8)


def longest_of(squares: Floats) -> float:
    """Length of the longest vector, from the squares of all, `UNUSABLE` ones aside."""
    return float(np.sqrt(max(0.0, float(squares.max(initial=0)))))


def vectors_of(records: Bytes, layout: Layout) -> npt.NDArray[Any]:
    """The vectors and facts of records, as `build_graph` takes them: a view, uint8 [rows, padded + 16]."""
    return records[:, layout.vector : layout.vector + layout.stored]
