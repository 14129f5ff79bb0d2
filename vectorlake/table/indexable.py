"""What can be indexed, by which kind: the questions that are asked before anything is built."""

from __future__ import annotations

from vectorlake.errors import InvalidInputError
from vectorlake.index.protocol import IndexKind, takes_several
from vectorlake.index.registry import kind_for_reading
from vectorlake.kernels.metric import Metric
from vectorlake.metadata.index import Index
from vectorlake.metadata.snapshot import Snapshot
from vectorlake.schema import Field, describe, is_multivector, is_vector, listing
from vectorlake.table.coverage import shape_of
from vectorlake.table.view import View


def index_column(snapshot: Snapshot, column: str | None) -> Field:
    """The column to index: the one named, or the only one with vectors.

    Raises:
        NotFoundError: no such column.
        InvalidInputError: it holds no vectors; or none is named, and there is not exactly one.
    """
    fields = [f for f in snapshot.schema.fields if is_vector(f.type) or is_multivector(f.type)]
    names = [field.name for field in fields]
    if column is not None:
        field = snapshot.schema.field(column)
        if field.name not in names:
            raise InvalidInputError(
                f"column {column!r} is {describe(field.type, field.logical)}, not a vector; the vector columns are "
                f"{listing(names)}"
            )
        return field
    if len(fields) != 1:
        raise InvalidInputError(
            "the table has no vector column"
            if not fields
            else f"the table has several vector columns ({listing(names)}): name one with column="
        )
    return fields[0]


def check_bits(metric: Metric, column: Field) -> None:
    """Refuse to count the bits of what are no bits.

    Raises:
        InvalidInputError: hamming, on anything but uint8.
    """
    shape = shape_of(column)
    if metric is Metric.HAMMING and (shape is None or shape[1] != "uint8"):
        raise InvalidInputError(
            f"metric 'hamming' counts differing bits of binary vectors, but column {column.name!r} is "
            f'{describe(column.type, column.logical)}: choose l2, cosine or dot, or store vl.vector(n, "binary")'
        )


def check_supported(kind: IndexKind, field: Field, metric: Metric, element: str) -> None:
    """Refuse what a kind can't do.

    Raises:
        InvalidInputError: names the metric or type, and those that it can do.
    """
    if takes_several(kind) != is_multivector(field.type):
        one = "multivectors" if is_multivector(field.type) else "vectors"
        fitting = "tokens" if is_multivector(field.type) else "ivf"
        raise InvalidInputError(
            f"an index of kind {kind.name!r} can't hold column {field.name!r} of {one}: use kind={fitting!r}"
        )
    if metric not in kind.metrics:
        known = listing(sorted(one.value for one in kind.metrics))
        raise InvalidInputError(
            f"an index of kind {kind.name!r} has no metric {metric.value!r}; its metrics are {known}"
        )
    check_bits(metric, field)
    if element not in kind.elements:
        raise InvalidInputError(
            f"an index of kind {kind.name!r} can't hold column {field.name!r}: its vectors are of {element}, and the kind "
            f"takes {listing(sorted(kind.elements))}"
        )


def readable_kind(index: Index) -> IndexKind:
    """The kind of an index, if this release can change it.

    Raises:
        UnsupportedError: it can't.
    """
    return kind_for_reading(index.kind, index.kind_version, f"index {index.name!r}")


def rows_with_value(view: View, field: Field) -> int:
    """Live rows that have a value in a column, by the statistics; where there are none, all rows count."""
    total = 0
    for fragment in view.fragments():
        known = fragment.bounds.get(field.id)
        nulls = known.null_count if known is not None and known.null_count is not None else 0
        missing = fragment.file_of(field.id) is None and field.default is None
        if not missing or fragment.constants.get(field.id) is not None:
            total += max(min(fragment.live_rows, fragment.row_count - nulls), 0)
    return total
