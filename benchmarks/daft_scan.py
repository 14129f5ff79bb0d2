"""Tables of a lake in Daft against its own Parquet reader, and against its Lance reader.

    python benchmarks/daft_scan.py [--rows 200000] [--dimension 384] [--times 3] [--only vectors]

Each query is a frame of its own, which is collected. Every number is the median of some runs after one to warm up; a ratio above 1
means that the lake is slower.
"""

from __future__ import annotations

from collections.abc import Callable

import daft
import vectorlake_daft
from _scan import compare, parsed, sources
from daft import DataFrame, col

Read = Callable[[], DataFrame]
QUERIES: dict[str, Callable[[Read], DataFrame]] = {
    "all columns": lambda read: read(),
    "scalars": lambda read: read().select("id", "name", "price"),
    "vectors": lambda read: read().select("id", "vec"),
    "filter, 1 %, all": lambda read: read().where(col("price") > 0.99),
    "filter, 50 %, scalars": lambda read: read().where(col("price") > 0.5).select("id", "name"),
    "filter, 1 row": lambda read: read().where(col("id") == 12345),
    "sum of a column": lambda read: read().sum("price"),
    "first 100 rows": lambda read: read().limit(100),
}


def collected(frame: DataFrame) -> int:
    """How many rows there are, all of which were computed."""
    return len(frame.collect())


def main() -> None:
    given = parsed(__doc__)
    daft.set_runner_native()
    with sources(given.rows, given.dimension) as made:
        readers: dict[str, Read] = {"Parquet": lambda: daft.read_parquet(f"{made.parquet}/*.parquet")}
        try:
            dataset = made.write_lance()
            daft.read_lance(dataset).limit(1).collect()
        except Exception as e:  # noqa: BLE001  # whatever keeps Daft and this release of Lance apart
            print(f"Lance: skipped ({type(e).__name__}: {e})")
        else:
            readers["Lance"] = lambda: daft.read_lance(dataset)
        for name, query in QUERIES.items():
            if given.only not in name:
                continue

            def mine(query: Callable[[Read], DataFrame] = query) -> int:
                return collected(query(lambda: vectorlake_daft.read(made.table)))

            peers = {
                peer: lambda query=query, read=read: collected(query(read)) for peer, read in readers.items()
            }
            found = {run() for run in (mine, *peers.values())}
            assert len(found) == 1, f"{name}: {found} rows"
            compare(name, mine, peers, times=given.times)


if __name__ == "__main__":
    main()
