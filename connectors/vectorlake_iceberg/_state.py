"""What a table remembers of its source: properties under `iceberg.`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import vectorlake as vl
from vectorlake.errors import InvalidInputError
from vectorlake_iceberg._read import Source

_PREFIX: Final = "iceberg."


@dataclass(frozen=True, slots=True)
class SourceState:
    """The source table, as of the version that an imported table shows."""

    table_uuid: str
    metadata_location: str
    schema_id: int
    snapshot_id: int | None = None
    """None while the source had no data."""
    sequence_number: int = 0
    name_mapping: str | None = None
    """Its property `schema.name-mapping.default`."""
    catalog: str | None = None
    identifier: str | None = None

    def to_properties(self) -> dict[str, str | None]:
        """As table properties; None removes one."""
        values: dict[str, object] = {
            "table-uuid": self.table_uuid,
            "metadata-location": self.metadata_location,
            "schema-id": self.schema_id,
            "snapshot-id": self.snapshot_id,
            "sequence-number": self.sequence_number,
            "name-mapping": self.name_mapping,
            "catalog": self.catalog,
            "identifier": self.identifier,
        }
        return {_PREFIX + key: None if value is None else str(value) for key, value in values.items()}


def state_from(properties: Mapping[str, str]) -> SourceState | None:
    """The state that a table's properties hold; None if it wasn't imported from Iceberg."""

    def get(key: str) -> str | None:
        return properties.get(_PREFIX + key)

    uuid, location, snapshot_id = get("table-uuid"), get("metadata-location"), get("snapshot-id")
    if uuid is None or location is None:
        return None
    return SourceState(
        table_uuid=uuid,
        metadata_location=location,
        schema_id=int(get("schema-id") or 0),
        snapshot_id=None if snapshot_id is None else int(snapshot_id),
        sequence_number=int(get("sequence-number") or 0),
        name_mapping=get("name-mapping"),
        catalog=get("catalog"),
        identifier=get("identifier"),
    )


def state_of(source: Source, snapshot_id: int | None = None) -> SourceState:
    """The state of a source now, or at one of its snapshots (with the schema that it was written under)."""
    snapshot = source.snapshot(snapshot_id)
    schema = source.schema(None if snapshot_id is None or snapshot is None else snapshot.schema_id)
    return SourceState(
        table_uuid=source.uuid,
        metadata_location=source.location,
        schema_id=schema.schema_id,
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        sequence_number=0 if snapshot is None else snapshot.sequence_number or 0,
        name_mapping=source.metadata.properties.get("schema.name-mapping.default"),
        catalog=source.catalog,
        identifier=source.identifier,
    )


def source_of(table: vl.Table) -> SourceState | None:
    """The Iceberg table that a table was imported from, as of its last sync; None if it wasn't imported."""
    return state_from(table.properties)


def required_state(properties: Mapping[str, str], name: str) -> SourceState:
    """The state, or `InvalidInputError` for a table that has no source."""
    state = state_from(properties)
    if state is None:
        raise InvalidInputError(
            f"table {name!r} was not imported from Iceberg: there is nothing to sync it with"
        )
    return state
