"""What connectors and jobs may use beyond the everyday face: the values of the format, and how to change a table with them.

A connector that registers foreign files builds `Fragment`s and hands them to `Lake.register_table` or `Table.commit`.
"""

from __future__ import annotations

from vectorlake.expr import Semantics
from vectorlake.ids import random_id
from vectorlake.lake.destination import Destination, IntoNewTable, IntoTable, create_staged, stage_new
from vectorlake.lake.frames import found_columns, free_names, query_column
from vectorlake.lake.naming import (
    TableLike,
    Version,
    given_table,
    named_table,
    pinned_table,
    table_at,
)
from vectorlake.lake.write_mode import WriteMode, write_into
from vectorlake.metadata.deletion import encode_deletes, to_bitmap, to_positions
from vectorlake.metadata.fragment import DataFile, DeletionVector, FieldBounds, Fragment, Layout
from vectorlake.metadata.literals import literal_from_json, literal_to_json
from vectorlake.metadata.snapshot import ManifestRef, Snapshot
from vectorlake.plan.commit import Delta, FragmentUpdate
from vectorlake.plan.index_changes import OptimizePlan
from vectorlake.plan.index_changes import Shape as IndexShape
from vectorlake.plan.keys import hash_keys
from vectorlake.schema import (
    ROW_ID,
    ROW_ID_FIELD_ID,
    ExtensionType,
    Field,
    FixedListType,
    ListType,
    MapType,
    ScalarType,
    Schema,
    StructType,
    Type,
    check_names,
    describe,
    did_you_mean,
    holds_vectors,
    is_multivector,
    is_vector,
    plain_columns,
    schema_from_arrow,
    storage_array,
    type_to_arrow,
)
from vectorlake.store.protocol import ObjectInfo, Store
from vectorlake.table.column_parts import ColumnWork
from vectorlake.table.compaction_parts import CompactionWork
from vectorlake.table.foreign import foreign_files, fragments_of_files
from vectorlake.table.fragment_reader import FragmentReader
from vectorlake.table.index_parts import IndexWork
from vectorlake.table.inspect import MetadataTable, inspect
from vectorlake.table.ref import TableRef
from vectorlake.table.scan import RowRange
from vectorlake.table.split import Split
from vectorlake.table.staging import (
    StagedRows,
    StageMode,
    StreamPosition,
    commit_staged,
    decode_fragments,
    discard_staged,
    stage_rows,
)
from vectorlake.table.view import View, find_fragments
from vectorlake.table.writer import write_fragments

__all__ = [
    "ColumnWork",
    "RowRange",
    "Split",
    "StageMode",
    "StagedRows",
    "StreamPosition",
    "TableRef",
    "commit_staged",
    "create_staged",
    "discard_staged",
    "stage_new",
    "stage_rows",
    "ROW_ID",
    "ROW_ID_FIELD_ID",
    "CompactionWork",
    "DataFile",
    "DeletionVector",
    "Delta",
    "Destination",
    "ExtensionType",
    "Field",
    "FieldBounds",
    "FixedListType",
    "Fragment",
    "FragmentReader",
    "FragmentUpdate",
    "IndexShape",
    "IndexWork",
    "IntoNewTable",
    "IntoTable",
    "Layout",
    "ListType",
    "ManifestRef",
    "MapType",
    "MetadataTable",
    "ObjectInfo",
    "OptimizePlan",
    "ScalarType",
    "Schema",
    "Semantics",
    "Snapshot",
    "Store",
    "StructType",
    "TableLike",
    "Type",
    "Version",
    "View",
    "WriteMode",
    "check_names",
    "decode_fragments",
    "describe",
    "did_you_mean",
    "encode_deletes",
    "find_fragments",
    "foreign_files",
    "found_columns",
    "hash_keys",
    "fragments_of_files",
    "free_names",
    "given_table",
    "holds_vectors",
    "inspect",
    "is_multivector",
    "is_vector",
    "literal_from_json",
    "literal_to_json",
    "named_table",
    "pinned_table",
    "plain_columns",
    "query_column",
    "random_id",
    "schema_from_arrow",
    "storage_array",
    "table_at",
    "to_bitmap",
    "to_positions",
    "type_to_arrow",
    "write_fragments",
    "write_into",
]
