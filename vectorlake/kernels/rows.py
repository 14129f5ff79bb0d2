"""Vectors in memory as compiled code sees them: an address, a stride and an element type."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectorlake.errors import InvalidInputError

FLOAT32: Final = 0
FLOAT64: Final = 1
FLOAT16: Final = 2
INT8: Final = 3
UINT8: Final = 4

_CODES: Final[dict[str, int]] = {"f4": FLOAT32, "f8": FLOAT64, "f2": FLOAT16, "i1": INT8, "u1": UINT8}


def code_of(dtype: np.dtype[Any]) -> int:
    """The constant for an element type."""
    return _CODES[dtype.str[1:]]


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """A matrix of vectors, one a row, kept alive by `array`.

    Attributes:
        array: [m, d] of float32, float64, float16, int8 or uint8, each row contiguous.
        code: the element type, one of this module's constants.
    """

    array: npt.NDArray[Any]
    code: int

    @classmethod
    def of(cls, array: npt.NDArray[Any], *, what: str, dimension: int | None = None) -> Rows:
        """View an array; it is copied only when a row is not contiguous or not in native byte order.

        Args:
            array: [m, d] float32, float64, float16, int8 or uint8.
            what: the argument's name, for the message of an error.
            dimension: the d that is required.

        Raises:
            InvalidInputError: the array has other axes, another dimension, none at all, or another element
                type.
        """
        array = np.asarray(array)
        if array.ndim != 2:
            raise InvalidInputError(
                f"{what} must be a matrix of one vector per row, not an array of shape {array.shape}: "
                "for one vector pass array.reshape(1, -1)"
            )
        if array.shape[1] == 0:
            raise InvalidInputError(f"{what} have dimension 0: a vector needs at least one element")
        if dimension is not None and array.shape[1] != dimension:
            raise InvalidInputError(f"{what} have dimension {array.shape[1]}, but {dimension} is needed")
        code = _CODES.get(array.dtype.str[1:])
        if code is None:
            raise InvalidInputError(
                f"{what} have elements of type {array.dtype}: "
                "cast them to float32, float64, float16, int8 or uint8"
            )
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if array.strides[1] != array.itemsize:
            array = np.ascontiguousarray(array)
        return cls(array, code)

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self.array.shape[0])

    @property
    def dimension(self) -> int:
        """How many elements in each row."""
        return int(self.array.shape[1])

    @property
    def address(self) -> int:
        """Where the first row begins."""
        return int(self.array.ctypes.data)

    @property
    def stride(self) -> int:
        """Bytes from one row to the next."""
        return int(self.array.strides[0])

    def require_bits(self, *, what: str) -> None:
        """Refuse vectors that can't be compared bit by bit.

        Raises:
            InvalidInputError: their elements are not uint8.
        """
        if self.code != UINT8:
            raise InvalidInputError(
                f"metric 'hamming' counts differing bits of packed uint8, but {what} have elements of type "
                f"{self.array.dtype}: pack them (numpy.packbits), or choose another metric"
            )

    def finite(self) -> npt.NDArray[np.bool_]:
        """Per row: whether every element is finite."""
        return np.isfinite(self.array).all(axis=1) if self.code <= FLOAT16 else np.ones(self.count, np.bool_)
