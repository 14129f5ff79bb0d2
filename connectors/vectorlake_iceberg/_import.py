"""Import an Iceberg table: fragments that point at its Parquet files. No data byte is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import pyiceberg.manifest as ice

import vectorlake as vl
from vectorlake.errors import AlreadyExistsError
from vectorlake.extend import random_id
from vectorlake_iceberg._deletes import applied, check_supported, read_deletes
from vectorlake_iceberg._fragments import fragments_over, layout_of, write_deletes
from vectorlake_iceberg._read import SourceLike, entries, manifests, open_source
from vectorlake_iceberg._state import state_of
from vectorlake_iceberg._types import FIRST_OWN_ID, schema_of

DELETES_FOLDER: Final = "deletes"


def import_table(
    source: SourceLike,
    lake: vl.Lake,
    name: str,
    *,
    snapshot_id: int | None = None,
    properties: Mapping[str, str] | None = None,
    summary: Mapping[str, str] | None = None,
) -> vl.Table:
    """Register an Iceberg table in a lake, in one atomic commit that writes metadata only.

    Each of the source's Parquet files becomes one fragment that points at it. Field ids, types, defaults, name mapping,
    partition values, statistics and deletes by position carry over; the source is remembered in properties
    (`iceberg.…`), so that `sync` can follow it. Columns added afterwards lie in files of the lake's own.

    Args:
        source: a table that pyiceberg loaded from any catalog, the location of a metadata file, or a table's folder.
        lake: where to register it. Data files are read with the lake's storage options.
        name: `namespace.table` in the lake.
        snapshot_id: the source's snapshot to import; its current one by default.
        properties: further table properties.
        summary: what the first snapshot is to say besides.

    Raises:
        AlreadyExistsError: the lake has a table of that name.
        NotFoundError: no metadata at that location, or no such snapshot.
        UnsupportedError: the source has equality deletes, files other than Parquet, encryption, or a type that this
            release does not know; names the file or column and what to do. Nothing is written.
        CorruptDataError: a file that the source names is missing or damaged; names it. Nothing is written.
    """
    if lake.exists(name):
        raise AlreadyExistsError(
            f"table {name!r} exists already in {lake.uri}: sync it, or choose another name"
        )
    opened = open_source(source, lake.resolve)
    state = state_of(opened, snapshot_id)
    schema = schema_of(opened.schema(state.schema_id))
    listed = entries(opened, manifests(opened, opened.snapshot(state.snapshot_id)))
    check_supported(listed)
    data = [
        entry
        for entry in listed
        if entry.file.content == ice.DataFileContent.DATA and entry.file.record_count
    ]
    # The oldest rows first: manifest lists begin with the newest.
    data.sort(key=lambda entry: entry.sequence)
    deletes = [entry for entry in listed if entry.file.content != ice.DataFileContent.DATA]
    deleted = applied(read_deletes(deletes, opened.read), data)
    layout = layout_of(opened, schema, state.name_mapping)
    fragments = fragments_over(opened, data, schema=schema, layout=layout, resolve=lake.resolve)
    bitmaps = {index: deleted[entry.uri] for index, entry in enumerate(data) if entry.uri in deleted}
    vectors = write_deletes(lake.folder(name), bitmaps, f"{DELETES_FOLDER}/{random_id()}.dv")
    fragments = [
        msgspec.structs.replace(fragment, deletes=vectors.get(index))
        for index, fragment in enumerate(fragments)
    ]
    remembered = {key: value for key, value in state.to_properties().items() if value is not None}
    return lake.register_table(
        name,
        schema,
        fragments,
        next_field_id=FIRST_OWN_ID,
        operation="import",
        properties={**(properties or {}), **remembered},
        summary={
            **(summary or {}),
            "source": state.metadata_location,
            "source_snapshot_id": state.snapshot_id,
            "added_files": len(data),
        },
    )
