"""A counter that threads share: each takes what comes next, in compiled code, so that none waits for another's last part.

A part that Python hands out costs a tenth of a millisecond in cold caches, so parts are few and large there. What is taken
here costs nothing, so it can be little: threads end together, also where a core is slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from vectorlake.kernels.jit import Builder, Value, intrinsic

INT64 = ir.IntType(64)


def counter(first: int = 0) -> npt.NDArray[np.int64]:
    """A counter that begins at a number."""
    return np.array((first,), np.int64)


@intrinsic
def take(typing: Any, address: Any, count: Any) -> Any:
    """Take the next numbers of the counter at an address: the first of so many."""

    def codegen(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        pointer = builder.inttoptr(arguments[0], INT64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "monotonic")

    return address(address, count), codegen
