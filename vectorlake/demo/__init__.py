"""The demo's parts: a corpus that every machine has, its embedder, and an Iceberg table that holds it."""
