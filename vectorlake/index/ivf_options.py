"""Options of an inverted file: what each may be, and what it is when it was not given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vectorlake.errors import InvalidInputError
from vectorlake.index.options import check_known, fraction, whole_number
from vectorlake.index.protocol import Config, Facts, Resolved
from vectorlake.kernels.ivf.fastscan import PAIRS
from vectorlake.kernels.ivf.rotation import padded
from vectorlake.kernels.metric import Metric
from vectorlake.schema import did_you_mean, listing

KNOWN: Final = ("nlist", "codes", "bits", "energy", "pq_m", "sample", "iterations")
RABITQ: Final = "rabitq"
PQ: Final = "pq"
INT8: Final = "int8"
FLAT: Final = "flat"
CODES: Final = (RABITQ, PQ, INT8, FLAT)
MOST_BITS: Final = 8
_ROWS_PER_CENTROID: Final = 64
_ITERATIONS: Final = 8
_FEW_ELEMENTS: Final = 128
"""One bit for each of so few tells rows apart so badly that twice as many must be refined."""
_ENERGY: Final = 0.95
"""What lies beyond so much adds less to the error of one bit for each element than a longer code costs time."""
_SMALL_SEGMENT: Final = 64
"""Up to so many rows there is one partition."""


def resolve(facts: Facts, options: Mapping[str, Any]) -> Resolved:
    """Settle all options of an inverted file.

    Raises:
        InvalidInputError: an unknown option, a value out of range, or one that does not go with another.
    """
    check_known("ivf", options, KNOWN)
    settled: dict[str, Any] = {}
    chosen: dict[str, str] = {}

    def settle(name: str, given: Any, automatic: Any, why: str) -> Any:
        settled[name] = automatic if given is None else given
        if given is None:
            chosen[name] = why
        return settled[name]

    nlist = whole_number(options, "nlist", least=1)
    if nlist is not None and nlist > max(facts.rows, 1):
        raise InvalidInputError(
            f"nlist is {nlist}, but there are {facts.rows} rows with a vector: "
            f"choose at most {max(facts.rows, 1)} partitions"
        )
    nlist = settle("nlist", nlist, automatic_nlist(facts.rows), f"about the square root of {facts.rows} rows")
    codes = settle("codes", _codes(facts, options), *_automatic_codes(facts))
    if codes == RABITQ:
        bits = 2 if facts.dimension <= _FEW_ELEMENTS else 1
        why = f"{facts.dimension} elements: refining makes up for what a code of {bits} for each loses"
        bits = settle("bits", whole_number(options, "bits", least=1, most=MOST_BITS), bits, why)
        energy = _ENERGY if bits == 1 else 1.0
        why = f"with a code of {bits} for each element, as exact as it needs to be"
        settle("energy", fraction(options, "energy"), energy, why)
    else:
        for name in ("bits", "energy"):
            if options.get(name) is not None:
                raise InvalidInputError(f"{name} goes with codes 'rabitq', not {codes!r}: leave it out")
    if codes == PQ:
        parts = whole_number(options, "pq_m", least=1, most=facts.dimension)
        settle(
            "pq_m",
            parts,
            -(-facts.dimension // 4),
            f"one 4-bit code for each 4 of {facts.dimension} elements",
        )
    elif options.get("pq_m") is not None:
        raise InvalidInputError(f"pq_m goes with codes 'pq', not {codes!r}: leave it out")
    settle(
        "sample",
        whole_number(options, "sample", least=1),
        min(max(facts.rows, 1), _ROWS_PER_CENTROID * nlist),
        f"{_ROWS_PER_CENTROID} rows for each of {nlist} partitions, or all",
    )
    settle("iterations", whole_number(options, "iterations", least=1), _ITERATIONS, "more change little")
    return Resolved(settled, chosen)


def automatic_nlist(rows: int) -> int:
    """Partitions for so many rows. More would be scanned more sparingly, but cost more to learn and to choose from."""
    if rows <= _SMALL_SEGMENT:
        return 1
    wanted = np.sqrt(rows)
    return int(min(max(4, round(wanted / 8) * 8), rows))


def _codes(facts: Facts, options: Mapping[str, Any]) -> str | None:
    value = options.get("codes")
    if value is None:
        return None
    if value not in CODES:
        hint = did_you_mean(value, list(CODES)) if isinstance(value, str) else ""
        raise InvalidInputError(f"unknown codes {value!r}{hint}; choose from {listing(list(CODES))}")
    if facts.metric is Metric.HAMMING and value != FLAT:
        raise InvalidInputError(
            f"under hamming, bits are their own codes: codes must be 'flat', not {value!r}"
        )
    return str(value)


def _automatic_codes(facts: Facts) -> tuple[str, str]:
    if facts.metric is Metric.HAMMING:
        return FLAT, "bits are their own codes"
    return RABITQ, "quick to make and to scan, whatever the data"


@dataclass(frozen=True)
class Shape:
    """Sizes that follow from the options.

    Attributes:
        width: elements of a transformed vector.
        covered: how many of them, from the first on, a code of bits covers.
        planes: bit planes of a code.
        pairs: bytes of a row's code in one plane (table look-ups); else of its whole code.
        interleaved: whether codes are stored for table look-ups.
        rotates: whether vectors are rotated.
    """

    width: int
    covered: int
    planes: int
    pairs: int
    interleaved: bool
    rotates: bool

    @property
    def row_bytes(self) -> int:
        return self.planes * self.pairs

    @property
    def block_bytes(self) -> int:
        return 32 * (self.row_bytes + 8)

    @property
    def table_bytes(self) -> int:
        """Of one query."""
        return 32 * self.pairs if self.interleaved else 4 * self.width


def shape_of(config: Config, covered: int | None = None) -> Shape:
    """The shape of an index whose codes of bits cover so many elements of a transformed vector, or all."""
    codes = config.options["codes"]
    dimension = config.dimension
    if config.metric is Metric.HAMMING:
        return Shape(
            8 * dimension, 8 * dimension, 1, -(-dimension // PAIRS) * PAIRS, interleaved=True, rotates=False
        )
    if codes == RABITQ:
        width = padded(dimension)
        covered = width if covered is None else covered
        return Shape(width, covered, config.options["bits"], covered // 8, interleaved=True, rotates=True)
    if codes == PQ:
        bytes_ = -(-config.options["pq_m"] // 2)
        return Shape(dimension, dimension, 1, -(-bytes_ // PAIRS) * PAIRS, interleaved=True, rotates=False)
    item = 1 if codes == INT8 else np.dtype(config.element).itemsize
    return Shape(dimension, dimension, 1, dimension * item, interleaved=False, rotates=False)
