"""Tables of a lake in DataFusion against its own Parquet reader.

    python benchmarks/datafusion_scan.py [--rows 200000] [--dimension 384] [--times 3] [--only filter]

Every number is the median of some runs after one to warm up; a ratio above 1 means that the lake is slower. (Lance's dataset can't be
registered in this release of DataFusion.)
"""

from __future__ import annotations

import datafusion
import vectorlake_datafusion
from _scan import compare, parsed, sources

SCANS = {
    "count(*)": "SELECT count(*) FROM {t}",
    "sum of a column": "SELECT sum(price) FROM {t}",
    "filter, 1 row": "SELECT name FROM {t} WHERE id = 12345",
    "filter, 1 %": "SELECT count(*), max(name) FROM {t} WHERE price > 0.99",
    "filter, 1 %, all": "SELECT * FROM {t} WHERE price > 0.99",
    "filter, 50 %": "SELECT count(*), sum(price) FROM {t} WHERE price > 0.5",
    "group by": "SELECT category, count(*), avg(price) FROM {t} GROUP BY category",
    "LIKE (not pushed)": "SELECT count(*) FROM {t} WHERE name LIKE '%99'",
    "first 100 rows": "SELECT * FROM {t} LIMIT 100",
    "half of the vectors": "SELECT id, vec FROM {t} WHERE id % 2 = 0",
    "all columns": "SELECT * FROM {t}",
}


def check_same(ctx: datafusion.SessionContext, mine: str, peer: str) -> None:
    """As many rows, and the same numbers but for the order in which floats were added."""
    ours, theirs = (ctx.sql(sql).to_arrow_table() for sql in (mine, peer))
    assert ours.num_rows == theirs.num_rows, (ours.num_rows, theirs.num_rows)
    if ours.num_rows == 1:
        for a, b in zip(ours.to_pylist()[0].values(), theirs.to_pylist()[0].values(), strict=True):
            assert a == b or abs(a - b) < 1e-6 * abs(b), (a, b)


def main() -> None:
    given = parsed(__doc__)
    with sources(given.rows, given.dimension) as made:
        ctx = datafusion.SessionContext()
        vectorlake_datafusion.attach(ctx, made.lake)
        ctx.register_parquet("native", str(made.parquet))
        for name, sql in SCANS.items():
            if given.only not in name:
                continue
            mine, peer = sql.format(t="lake.bench.items"), sql.format(t="native")
            check_same(ctx, mine, peer)
            compare(
                name,
                lambda q=mine: ctx.sql(q).collect(),
                {"Parquet": lambda q=peer: ctx.sql(q).collect()},
                times=given.times,
            )


if __name__ == "__main__":
    main()
