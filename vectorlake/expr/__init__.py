"""Filter expressions: parse SQL or pyarrow expressions, bind to a schema, evaluate on Arrow, bound for pruning."""

from __future__ import annotations


class Expr:
    """A bound expression over Arrow columns (placeholder until the parser lands)."""
