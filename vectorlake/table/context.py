"""What a table is given from outside: how to reach foreign files, time, ids, and how closely to check what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vectorlake.clock import Clock, system_clock
from vectorlake.ids import NewId, random_id
from vectorlake.store.open import resolve
from vectorlake.store.protocol import Store


class Integrity(StrEnum):
    """How a data file is checked when it is opened."""

    LENGTH = "length"
    """Its length is the manifest's."""
    CHECKSUM = "checksum"
    """Its checksum too: the file is read whole first. Some formats read a flipped byte back without noticing."""


@dataclass(frozen=True)
class Context:
    """Passed from the lake to its tables."""

    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """How to reach stores: the lake's own, and those of foreign files."""
    clock: Clock = system_clock
    new_id: NewId = random_id
    integrity: Integrity = Integrity.LENGTH
    audit: Mapping[str, str] = field(default_factory=dict)
    """Who commits: written into the summary of every snapshot."""

    def resolve(self, uri: str) -> tuple[Store, str]:
        """An absolute URI as a store and a path in it."""
        return resolve(uri, self.storage_options)
