"""vectorlake in a Spark session: the data source and functions, and a lake's tables in Spark's catalog."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import ClassVar, Final

from pyspark.sql import SparkSession

from vectorlake import AlreadyExistsError, Lake, NotFoundError
from vectorlake.extend import TableRef
from vectorlake_spark._functions import Knn, KnnJoin, table_function
from vectorlake_spark._source import ATTACHED_KEY, VectorlakeSource

_PROVIDER: Final = "vectorlake_"


def register(spark: SparkSession) -> None:
    """Let a session know the format `vectorlake`, and the SQL functions `knn` and `knn_join`.

    Spark finds the format by itself where vectorlake is installed; the functions only so.
    """
    spark.dataSource.register(VectorlakeSource)
    spark.udtf.register("knn", table_function(Knn, "knn"))
    spark.udtf.register("knn_join", table_function(KnnJoin, "knn_join"))


def attach(spark: SparkSession, lake: Lake, *, include: Iterable[str] | None = None) -> list[str]:
    """Show a lake's tables in Spark's catalog: table `ns.items` as `ns.items`, to read and to insert into.

    Each statement reads the newest version. A namespace with other characters than letters, digits and `_` has `_` in
    their place (`a.b.items` is `a_b.items`). The entries need this session: attach again in another one. Call it again
    after tables were created, dropped, or got other columns.

    Args:
        spark: the session.
        lake: the lake.
        include: only these tables: names, or patterns such as `"ns.*"`.

    Returns:
        The tables' names in Spark.

    Raises:
        AlreadyExistsError: Spark's catalog has another table of that name.
        NotFoundError: `include` names a table that does not exist.
    """
    register(spark)
    patterns = None if include is None else list(include)
    names = [
        name for name in lake.tables() if patterns is None or any(fnmatchcase(name, p) for p in patterns)
    ]
    for pattern in patterns or ():
        if not set("*?[") & set(pattern) and pattern not in names:
            raise NotFoundError(f"no table {pattern!r} in {lake.uri}")
    return [_show(spark, lake, name) for name in names]


def detach(spark: SparkSession, lake: Lake) -> None:
    """Undo `attach`: remove the entries from Spark's catalog. Nothing of the lake itself changes."""
    for name in lake.tables():
        shown = _shown_name(name)
        if _provider_of(spark, shown) == _provider(lake, name):
            spark.sql(f"DROP TABLE {shown}")


def located_at(ref: TableRef) -> dict[str, str]:
    """The options that name a table at the version of a ref."""
    options = {"uri": ref.uri, "version": str(ref.version)}
    if ref.branch is not None:
        options["branch"] = ref.branch
    return options | {f"storage.{key}": value for key, value in ref.storage_options}


def _show(spark: SparkSession, lake: Lake, name: str) -> str:
    provider, shown = _provider(lake, name), _shown_name(name)
    ref = lake.table(name).ref
    options = {key: value for key, value in located_at(ref).items() if key != "version"}
    spark.dataSource.register(_source(provider, options))
    existing = _provider_of(spark, shown)
    if existing is not None and existing != provider:
        raise AlreadyExistsError(f"Spark's catalog has a table {shown} already: drop or rename it there")
    spark.sql(f"CREATE DATABASE IF NOT EXISTS {shown.partition('.')[0]}")
    if existing is not None:
        spark.sql(f"DROP TABLE {shown}")
    spark.sql(f"CREATE TABLE {shown} USING {provider}")
    return shown


def _source(provider: str, options: Mapping[str, str]) -> type[VectorlakeSource]:
    """A data source for one table. Spark doesn't tell a source which table of the catalog it is asked for."""

    class TableSource(VectorlakeSource):
        fixed: ClassVar[Mapping[str, str]] = dict(options)

        @classmethod
        def name(cls) -> str:
            return provider

    return TableSource


def _provider(lake: Lake, name: str) -> str:
    digest = hashlib.blake2b(f"{lake.uri} {name}".encode(), digest_size=6).hexdigest()
    return f"{_PROVIDER}{re.sub(r'[^a-z0-9]+', '_', name.lower())}_{digest}"


def _shown_name(name: str) -> str:
    namespace, _, table = name.rpartition(".")
    return ".".join(f"`{re.sub(r'[^A-Za-z0-9_]', '_', part)}`" for part in (namespace, table))


def _provider_of(spark: SparkSession, shown: str) -> str | None:
    """The provider of a table that was attached; None if Spark's catalog has no table of that name, "" if another's."""
    if not spark.catalog.tableExists(shown):
        return None
    columns = spark.table(shown).schema.fields
    return str(columns[0].metadata.get(ATTACHED_KEY, "")) if columns else ""
