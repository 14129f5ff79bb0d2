"""Arrow tables as frames of pandas and polars, of which each is an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from vectorlake.errors import UnsupportedError

if TYPE_CHECKING:
    import pandas
    import polars


def as_pandas(table: pa.Table) -> pandas.DataFrame:
    """The rows as a pandas frame.

    Raises:
        UnsupportedError: pandas is not installed.
    """
    try:
        return table.to_pandas()
    except ImportError as e:
        raise UnsupportedError("to_pandas needs pandas: pip install 'vectorlake[pandas]'") from e


def as_polars(table: pa.Table) -> polars.DataFrame:
    """The rows as a polars frame.

    Raises:
        UnsupportedError: polars is not installed.
    """
    try:
        import polars
    except ImportError as e:
        raise UnsupportedError("to_polars needs polars: pip install 'vectorlake[polars]'") from e
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame
