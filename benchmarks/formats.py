"""What each data-file format costs for scalars and vectors, beside Lance's dataset and pyarrow's Parquet in
the same run.

    python benchmarks/formats.py [--rounds 5] [--json results.json]

Reads `pypi_minilm` (100,000 package summaries and their vectors of 384 dimensions) from the folder named by
VECTORLAKE_BENCH_DATA, or from `../shared/data` beside the checkout, and says so where it is not there.
Scalars are the same rows five times over under new ids. Times are the best of the rounds, files are in the
page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as Grid

from vectorlake.expr import parse_filter
from vectorlake.formats.protocol import FileReader, FileSource, WriteOptions
from vectorlake.formats.registry import format_named
from vectorlake.store.local import LocalStore

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = Path(os.environ.get("VECTORLAKE_BENCH_DATA", SHARED)) / "pypi_minilm"
FORMATS = ["parquet", "vortex", "lance", "arrow"]
COPIES = 5
FILTER = "month = '2018-01'"


@dataclass(frozen=True)
class Line:
    """One figure: `value` in `unit`, and how many times quicker (smaller) it is than the peer's, if there is
    one."""

    group: str
    what: str
    who: str
    value: float
    unit: str
    over_peer: float | None = None
    target: float | None = None


def best(run: Callable[[], object], rounds: int) -> float:
    """The quickest of some rounds, in milliseconds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def written(format_name: str, table: pa.Table, folder: Path) -> FileSource:
    name = f"data.{format_name}"
    (folder / name).unlink(missing_ok=True)
    writer = format_named(format_name).create(folder / name, table.schema, WriteOptions())
    for batch in table.to_batches():
        writer.write(batch)
    return FileSource(LocalStore(folder), name, writer.close().size)


def scanned(reader: FileReader, columns: list[str] | None = None) -> int:
    return sum(batch.num_rows for batch in reader.read(columns, 0, reader.num_rows))


def filtered(reader: FileReader, predicate_text: str) -> int:
    predicate = parse_filter(predicate_text, reader.schema)
    inside = reader.matching(predicate, 0, reader.num_rows)
    if inside is not None:
        return len(inside)
    columns = sorted(predicate.columns())
    return sum(
        pc.sum(predicate.mask(batch)).as_py() or 0
        for start, stop in reader.prune(predicate, 0, reader.num_rows)
        for batch in reader.read(columns, start, stop)
    )


def scalars(folder: Path, rounds: int) -> list[Line]:
    base = pq.read_table(DATA / "packages.parquet")
    ids = pa.array(np.arange(len(base) * COPIES))
    table = pa.concat_tables([base] * COPIES).set_column(0, "id", ids).combine_chunks()
    rng = np.random.default_rng(0)
    takes = {count: np.sort(rng.choice(len(table), count, replace=False)) for count in (1_000, 10_000)}
    expected = pc.sum(pc.equal(table["month"], FILTER.split("'")[1])).as_py()
    lines = []

    def line(what: str, who: str, value: float, unit: str = "ms") -> None:
        lines.append(Line(f"scalars, {len(table):,} rows", what, who, value, unit))

    for name in FORMATS:
        line("write", name, best(lambda name=name: written(name, table, folder), min(rounds, 3)))
        source = written(name, table, folder)
        line("size", name, (source.size or 0) / 1e6, "MB")
        line("open", name, best(lambda name=name, source=source: format_named(name).open(source), rounds))
        reader = format_named(name).open(source)
        assert filtered(reader, FILTER) == expected
        line("scan", name, best(lambda reader=reader: scanned(reader), rounds))
        line("scan of one column", name, best(lambda reader=reader: scanned(reader, ["id"]), rounds))
        line("filter by month", name, best(lambda reader=reader: filtered(reader, FILTER), rounds))
        for count, wanted in takes.items():
            assert reader.take(["id"], wanted).column(0).to_numpy().tolist() == wanted.tolist()
            took = best(lambda reader=reader, wanted=wanted: reader.take(None, wanted), rounds)
            line(f"take of {count:,}", name, took)
    path = folder / "peer.parquet"
    line(
        "write",
        "pyarrow.parquet",
        best(lambda: pq.write_table(table, path, compression="zstd"), min(rounds, 3)),
    )
    line("size", "pyarrow.parquet", path.stat().st_size / 1e6, "MB")
    line("scan", "pyarrow.parquet", best(lambda: pq.read_table(path), rounds))
    dataset = lance.write_dataset(table, str(folder / "peer.lance"))
    line("scan", "lance.dataset", best(lambda: [batch.num_rows for batch in dataset.to_batches()], rounds))
    line("filter by month", "lance.dataset", best(lambda: dataset.count_rows(filter=FILTER), rounds))
    for count, wanted in takes.items():
        indices = wanted.tolist()
        line(
            f"take of {count:,}", "lance.dataset", best(lambda indices=indices: dataset.take(indices), rounds)
        )
    return lines


def vectors(folder: Path, rounds: int) -> list[Line]:
    values = np.load(DATA / "vectors.npy").astype("f4")
    kind = pa.list_(pa.float32(), values.shape[1])
    table = pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)})
    group = f"vectors, {len(values):,} × {values.shape[1]}"
    wanted = np.random.default_rng(0).choice(len(values), 1_000, replace=False)
    lines: list[Line] = []

    def lance_write(rows: int) -> lance.LanceDataset:
        shutil.rmtree(folder / "vectors.lance", ignore_errors=True)
        batches = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=rows))
        return lance.write_dataset(batches, str(folder / "vectors.lance"))

    def summed(batches: object) -> float:
        # Read every byte: a scan that only maps pages would otherwise cost nothing.
        return sum(float(batch.column(0).values.to_numpy().sum()) for batch in batches)  # type: ignore[attr-defined]

    # Lance's own writer is quicker when it gets small batches: it is measured at its best.
    peers = {"write": min(best(lambda rows=rows: lance_write(rows), rounds) for rows in (8_192, len(values)))}
    dataset = lance_write(8_192)
    peers["scan and sum"] = best(lambda: summed(dataset.to_batches()), rounds)
    peers["take of 1,000"] = best(lambda: dataset.take(wanted.tolist()), rounds)
    lines += [Line(group, what, "lance.dataset", value, "ms") for what, value in peers.items()]
    for name in FORMATS:
        source = written(name, table, folder)
        reader = format_named(name).open(source)
        assert reader.take(["v"], wanted).column(0).equals(table["v"].take(pa.array(wanted)).combine_chunks())
        found = {
            "write": best(lambda name=name: written(name, table, folder), rounds),
            "scan and sum": best(lambda reader=reader: summed(reader.read(["v"], 0, len(values))), rounds),
            "take of 1,000": best(lambda reader=reader: reader.take(["v"], wanted), rounds),
        }
        for what, value in found.items():
            target = {"write": 1 / 1.1}.get(what, 1.0) if name == "lance" else None
            lines.append(Line(group, what, name, value, "ms", peers[what] / value, target))
        lines.append(Line(group, "size", name, (source.size or 0) / 1e6, "MB"))
    return lines


def show(lines: list[Line]) -> bool:
    """Print the figures, a grid a group, formats side by side; whether all targets were reached."""
    console = Console()
    for group in dict.fromkeys(line.group for line in lines):
        inside = [line for line in lines if line.group == group]
        who = list(dict.fromkeys(line.who for line in inside))
        grid = Grid(title=group)
        grid.add_column("")
        for name in who:
            grid.add_column(name, justify="right")
        for what in dict.fromkeys(line.what for line in inside):
            cells = {line.who: f"{line.value:,.1f} {line.unit}" for line in inside if line.what == what}
            grid.add_row(what, *(cells.get(name, "") for name in who))
        console.print(grid)
    reached = True
    for line in lines:
        if line.target is not None and line.over_peer is not None:
            ok = line.over_peer >= line.target
            reached &= ok
            verdict = "reached" if ok else "MISSED"
            print(
                f"{verdict}: {line.what} of vectors is {line.over_peer:.2f}× as quick as lance.dataset ",
                end="",
            )
            print(f"(target {line.target:.2f}×)")
    return reached


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    if not (DATA / "vectors.npy").exists():
        print(f"skipped: there is no {DATA}; name a folder that holds pypi_minilm by VECTORLAKE_BENCH_DATA")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        lines = [*vectors(Path(folder), given.rounds), *scalars(Path(folder), given.rounds)]
    reached = show(lines)
    if given.json:
        given.json.write_text(json.dumps([asdict(line) for line in lines], indent=1))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
