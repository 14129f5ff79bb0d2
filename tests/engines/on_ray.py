"""Ray Data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from engine import Capability, Engine, engine, numbered

import vectorlake as vl


@engine
class Ray(Engine):
    name = "ray"
    needs = ("ray", "pandas")
    lacks: ClassVar = {
        Capability.SQL: "Ray Data has no SQL",
        Capability.SQL_WRITE: "Ray Data has no SQL",
        Capability.ORDER: "blocks come as they are ready, unless ExecutionOptions.preserve_order is set",
    }

    def start(self) -> None:
        start_ray()

    def stop(self) -> None:
        import ray

        ray.shutdown()

    def read(
        self,
        table: vl.Table,
        *,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        version: int | str | None = None,
        with_row_id: bool = False,
    ) -> pa.Table:
        import vectorlake_ray

        return _collected(
            vectorlake_ray.read(
                table.uri, columns, filter, version=version, with_row_id=with_row_id, override_num_blocks=2
            )
        )

    def write(
        self, lake: vl.Lake, name: str, rows: pa.Table, *, mode: str, primary_key: Sequence[str] = ()
    ) -> None:
        import ray.data
        import vectorlake_ray

        ds = ray.data.from_arrow(rows)
        if mode == "create":
            vectorlake_ray.create_table(ds, lake, name, primary_key=primary_key)
        else:
            vectorlake_ray.write(ds, lake.table(name), mode)

    def knn(self, table: vl.Table, queries: pa.Array, k: int, **options: Any) -> pa.Table:
        import ray.data
        import vectorlake_ray

        asked = ray.data.from_arrow(numbered(queries))
        return _collected(vectorlake_ray.knn_join(asked, table, k, vec="vector", columns=[], **options))

    def metadata(self, table: vl.Table, name: str) -> pa.Table:
        import vectorlake_ray

        return _collected(vectorlake_ray.read_metadata(table, name))


def start_ray() -> None:
    """A cluster of two cores on this machine."""
    import ray
    import ray.data

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 1024**2,
        log_to_driver=False,
        logging_level=logging.ERROR,
        # A worker takes two seconds of a core to start and import: none in vain, and none that is idle is ended for another.
        _system_config={
            "prestart_worker_first_driver": False,
            "idle_worker_killing_time_threshold_ms": 600_000,
        },
    )
    ray.data.DataContext.get_current().enable_progress_bars = False


def _collected(ds: Any) -> pa.Table:
    import ray

    # A dataset without rows has no blocks.
    return pa.concat_tables(ray.get(ds.to_arrow_refs()) or [ds.schema().base_schema.empty_table()])
