"""Spark imports top-level modules called `pyspark_…` by itself and registers their `DefaultSource`."""

from vectorlake_spark._source import VectorlakeSource as DefaultSource

__all__ = ["DefaultSource"]
