"""Fragments over a source's data files: one a file, described by what the source's manifests say of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from pyiceberg.transforms import IdentityTransform
from pyroaring import BitMap64

from vectorlake.errors import CorruptDataError, InvalidInputError, NotFoundError
from vectorlake.extend import (
    DataFile,
    DeletionVector,
    Field,
    Fragment,
    Layout,
    ObjectInfo,
    Schema,
    Store,
    encode_deletes,
)
from vectorlake_iceberg._read import Entry, Resolve, Source
from vectorlake_iceberg._types import Decode, bound_decoders, bounds_of, field_of, partition_literal

_HEADS: Final = 16


def layout_of(source: Source, schema: Schema, name_mapping: str | None) -> Layout:
    """How the files of a source are read: by field id, or by its name mapping where a file has no ids.

    A file may hold columns of any schema that the source ever had, and an older schema may become current again.

    Raises:
        InvalidInputError: the mapping is no JSON list.
    """
    mapping: tuple[dict[str, Any], ...] = ()
    if name_mapping is not None:
        try:
            mapping = tuple(dict(entry) for entry in json.loads(name_mapping))
        except (ValueError, TypeError) as e:
            raise InvalidInputError(
                f"the source's schema.name-mapping.default is no list of mapped fields: {e}"
            ) from e
    fields = {field.id: field for field in schema.fields}
    for other in reversed(source.metadata.schemas):
        fields = {**{field.field_id: field_of(field) for field in other.fields}, **fields}
    ordered = [
        *schema.fields,
        *(field for field_id, field in sorted(fields.items()) if field not in schema.fields),
    ]
    return Layout(tuple(ordered), by_field_id=True, name_mapping=mapping)


def fragments_over(
    source: Source, entries: Sequence[Entry], *, schema: Schema, layout: Layout, resolve: Resolve
) -> list[Fragment]:
    """One fragment a data file, without ids and deletes; only the files' heads are asked of the store, in parallel.

    Raises:
        CorruptDataError: a data file is missing or has another length than the source recorded; names it.
    """
    partitions, decoders = _identity_columns(source, schema), bound_decoders(schema.fields)
    if all(entry.uri.startswith("file:") for entry in entries):
        infos = [_head(entry, resolve) for entry in entries]  # quicker than handing each to a thread
    else:
        with ThreadPoolExecutor(_HEADS) as pool:
            infos = list(pool.map(lambda entry: _head(entry, resolve), entries))
    return [
        _fragment(entry, info, decoders, layout, partitions.get(entry.file.spec_id, ()))
        for entry, info in zip(entries, infos, strict=True)
    ]


def _identity_columns(source: Source, schema: Schema) -> Mapping[int, tuple[tuple[int, Field], ...]]:
    """By partition spec: the columns that it partitions by their value, with the position of that in a partition tuple."""
    columns = {field.id: field for field in schema.fields}
    return {
        spec.spec_id: tuple(
            (index, columns[field.source_id])
            for index, field in enumerate(spec.fields)
            if isinstance(field.transform, IdentityTransform) and field.source_id in columns
        )
        for spec in source.metadata.partition_specs
    }


def _head(entry: Entry, resolve: Resolve) -> ObjectInfo:
    store, path = resolve(entry.uri)
    try:
        info = store.head(path)
    except NotFoundError as e:
        raise CorruptDataError(
            f"the source file {entry.uri} is missing, though the source's metadata names it: restore it, or refresh "
            "the source table and try again"
        ) from e
    if info.size != entry.file.file_size_in_bytes:
        raise CorruptDataError(
            f"the source file {entry.uri} has {info.size} bytes, the source's metadata says "
            f"{entry.file.file_size_in_bytes}: it was replaced behind the source's back; restore it"
        )
    return info


def _fragment(
    entry: Entry,
    info: ObjectInfo,
    decoders: Mapping[int, Decode],
    layout: Layout,
    partition: Iterable[tuple[int, Field]],
) -> Fragment:
    file, rows = entry.file, entry.file.record_count
    data = DataFile(
        path=entry.uri,
        format="parquet",
        layout=layout,
        row_start=0,
        row_stop=rows,
        size=info.size,
        e_tag=info.e_tag,
    )
    constants = {
        field.id: partition_literal(value, field)
        for index, field in partition
        if (value := file.partition[index]) is not None
    }
    bounds = bounds_of(
        decoders,
        lower=file.lower_bounds or {},
        upper=file.upper_bounds or {},
        nulls=file.null_value_counts or {},
        nans=file.nan_value_counts or {},
    )
    return Fragment(row_count=rows, files=(data,), constants=constants, bounds=bounds)


def write_deletes(store: Store, bitmaps: Mapping[int, BitMap64], path: str) -> Mapping[int, DeletionVector]:
    """Deletion vectors in one new file of the table, by the key of each bitmap; no file for none."""
    data, vectors = encode_deletes(path, bitmaps.values())
    if data:
        store.put_new(path, data)
    return dict(zip(bitmaps, vectors, strict=True))
