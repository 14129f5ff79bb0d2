"""Write rows that an engine hands over into a table of a lake, in one of a few modes, in one atomic commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from vectorlake.errors import InvalidInputError
from vectorlake.lake.lake import Lake
from vectorlake.table.table import Table


class WriteMode(StrEnum):
    """What happens to the rows that are there."""

    CREATE = "create"
    """There must be no table; it is created."""
    APPEND = "append"
    """They stay."""
    OVERWRITE = "overwrite"
    """They are replaced."""
    UPSERT = "upsert"
    """Those with the primary keys of new ones are replaced."""

    @classmethod
    def parse(cls, mode: str | WriteMode) -> WriteMode:
        """The mode of a name.

        Raises:
            InvalidInputError: there is none.
        """
        try:
            return cls(mode)
        except ValueError as e:
            raise InvalidInputError(
                f"mode must be 'create', 'append', 'overwrite' or 'upsert', not {mode!r}"
            ) from e


def write_into(
    lake: Lake,
    name: str,
    data: object,
    mode: str | WriteMode,
    *,
    primary_key: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Write rows into the table of a name, in one atomic commit.

    Args:
        lake: where the table is.
        name: the table, `ns.items`.
        data: what `Table.append` takes; streams are read batch by batch.
        mode: `"create"` (with `primary_key` and `properties`), `"append"`, `"overwrite"` or `"upsert"`.

    Returns:
        The table, at the version written.

    Raises:
        AlreadyExistsError: the table to create exists.
        NotFoundError: the table to write to does not.
        InvalidInputError: an unknown mode, settings of a new table for one that exists, or columns and values that
            don't fit; nothing is written.
    """
    mode = WriteMode.parse(mode)
    if mode is WriteMode.CREATE:
        return lake.create_table(name, data, primary_key=primary_key, properties=properties)
    if primary_key or properties:
        raise InvalidInputError(
            f"primary_key and properties are settings of a new table: leave them out, or use mode='create', not {mode}"
        )
    table = lake.table(name)
    match mode:
        case WriteMode.APPEND:
            table.append(data)
        case WriteMode.OVERWRITE:
            table.overwrite(data)
        case WriteMode.UPSERT:
            table.upsert(data)
    return table
