"""Filters as Vortex evaluates them: only those for which its answer is exactly ours."""

from __future__ import annotations

import pyarrow as pa
from vortex.expr import Expr as VortexExpr

from vectorlake.expr import Expr


def translated(predicate: Expr, schema: pa.Schema) -> VortexExpr | None:
    """The predicate for Vortex, true for the very same rows; None where there is none, or it might differ."""
    return None
