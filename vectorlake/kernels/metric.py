"""The distances that vectors are compared by, and the ways a nearest-neighbour scan can compute them."""

from __future__ import annotations

import difflib
import enum
from typing import Final

from vectorlake.errors import InvalidInputError


class Metric(enum.StrEnum):
    """How far two vectors are apart; smaller is nearer under every metric.

    `L2` is the squared Euclidean distance, `COSINE` is 1 minus the cosine similarity (in [0, 2]; a zero
    vector has no direction and never matches), `DOT` is the negative inner product. `HAMMING` is the number of
    bits that differ, of vectors of packed bits (uint8).
    """

    L2 = "l2"
    COSINE = "cosine"
    DOT = "dot"
    HAMMING = "hamming"

    @classmethod
    def parse(cls, name: str) -> Metric:
        """The metric of that name, in any case, or under a name that other tools use for the same order.

        Raises:
            InvalidInputError: no metric has that name; the message lists those that exist and the likeliest
                one meant.
        """
        wanted = name.strip().lower()
        found = _NAMES.get(wanted)
        if found is not None:
            return found
        near = difflib.get_close_matches(wanted, _NAMES, n=1)
        hint = f"; did you mean {_NAMES[near[0]].value!r}?" if near else ""
        known = ", ".join(repr(metric.value) for metric in cls)
        raise InvalidInputError(f"unknown metric {name!r}: choose one of {known}{hint}")


_NAMES: Final[dict[str, Metric]] = {
    "l2": Metric.L2,
    "euclidean": Metric.L2,
    "sqeuclidean": Metric.L2,
    "cosine": Metric.COSINE,
    "cos": Metric.COSINE,
    "angular": Metric.COSINE,
    "dot": Metric.DOT,
    "ip": Metric.DOT,
    "inner_product": Metric.DOT,
    "hamming": Metric.HAMMING,
}


class Path(enum.Enum):
    """Which products nominate candidates; every path returns the same rows and the same distances.

    `AUTO` takes the fastest that this CPU runs. `DIRECT` computes every distance in float64 (the quickest for
    a handful of queries), `AVX2` multiplies small integers (elements as they are, where they are such), `NUMKONG`
    multiplies int8 on the widest units that numkong finds (AMX, VNNI, SDOT), and `FLOAT` multiplies float32 through
    numpy's BLAS. `GPU` multiplies float32 on a device that torch drives, and is never taken unasked. Hamming distances
    are counted directly on all of them.
    """

    AUTO = "auto"
    DIRECT = "direct"
    AVX2 = "avx2"
    NUMKONG = "numkong"
    FLOAT = "float"
    GPU = "gpu"
