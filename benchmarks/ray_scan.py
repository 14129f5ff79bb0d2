"""Tables of a lake in Ray Data against its own Parquet reader, and against lance-ray where that is installed.

    python benchmarks/ray_scan.py [--rows 200000] [--dimension 384] [--times 3] [--only vectors]

Each query is a dataset of its own, whose blocks are fetched one after another. Every number is the median of some runs after one to
warm up; a ratio above 1 means that the lake is slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import ray.data
import vectorlake_ray
from _scan import compare, parsed, sources
from ray.data import Dataset
from ray.data.expressions import col

Read = Callable[[], Dataset]
QUERIES: dict[str, Callable[[Read], Dataset]] = {
    "all columns": lambda read: read(),
    "scalars": lambda read: read().select_columns(["id", "name", "price"]),
    "vectors": lambda read: read().select_columns(["id", "vec"]),
    "filter, 1 %, all": lambda read: read().filter(expr=col("price") > 0.99),
    "filter, 50 %, scalars": lambda read: (
        read().filter(expr=col("price") > 0.5).select_columns(["id", "name"])
    ),
    "filter, 1 row": lambda read: read().filter(expr=col("id") == 12345),
}


def fetched(ds: Dataset) -> int:
    """The rows, each block of which this process has had in its hands."""
    return sum(
        block.num_rows for refs in ds.iter_internal_ref_bundles() for block in map(ray.get, refs.block_refs)
    )


def main() -> None:
    given = parsed(__doc__)
    with sources(given.rows, given.dimension) as made:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=2 * 1024**3,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        readers: dict[str, Read] = {"Parquet": lambda: ray.data.read_parquet(str(made.parquet))}
        try:
            import lance_ray
        except ImportError:
            print("lance-ray: skipped, it is not installed")
        else:
            dataset = made.write_lance()
            readers["lance-ray"] = lambda: lance_ray.read_lance(dataset)
        for name, query in QUERIES.items():
            if given.only not in name:
                continue

            def mine(query: Callable[[Read], Dataset] = query) -> int:
                return fetched(query(lambda: vectorlake_ray.read(made.table)))

            peers = {
                peer: lambda query=query, read=read: fetched(query(read)) for peer, read in readers.items()
            }
            found = {run() for run in (mine, *peers.values())}
            assert len(found) == 1, f"{name}: {found} rows"
            compare(name, mine, peers, times=given.times)
        ray.shutdown()


if __name__ == "__main__":
    main()
