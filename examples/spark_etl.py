"""An ETL job on Spark: read Parquet or JSON, clean it, embed the texts, upsert into a table, compact and index it.

    spark-submit examples/spark_etl.py articles.parquet lake/ news.articles
    python examples/spark_etl.py articles.json lake/ news.articles --dimension 256

Run again with newer files, it replaces the articles that changed and adds the new ones. The embedder hashes words: it
needs no model, and gives every machine the same vectors. Put your own model into `embed`.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from collections.abc import Iterator

import pyarrow as pa
import vectorlake_spark
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

import vectorlake as vl


def extract(spark: SparkSession, source: str) -> DataFrame:
    """The raw rows: `id`, `title`, `body`."""
    return spark.read.json(source) if source.endswith((".json", ".jsonl")) else spark.read.parquet(source)


def clean(raw: DataFrame) -> DataFrame:
    """One row for each id, its text without markup and surplus space; rows without text are left out."""
    text = sql.concat_ws(" ", sql.col("title"), sql.col("body"))
    text = sql.regexp_replace(sql.regexp_replace(text, "<[^>]*>", " "), r"\s+", " ")
    return (
        raw.select(sql.col("id").cast("long").alias("id"), "title", sql.trim(text).alias("text"))
        .where("id IS NOT NULL AND text <> ''")
        .dropDuplicates(["id"])
    )


def hashed(text: str, dimension: int) -> list[float]:
    """A unit vector of the words' hashes: texts with common words lie near each other."""
    vector = [0.0] * dimension
    for word in re.findall(r"\w+", text.lower()):
        digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        vector[digest % dimension] += 1.0 if digest >> 63 else -1.0
    length = math.sqrt(sum(number * number for number in vector)) or 1.0
    return [number / length for number in vector]


def embed(rows: DataFrame, dimension: int) -> DataFrame:
    """The rows with a column `embedding`, computed for a batch of texts at a time: load a model once above the loop."""

    def embedded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vectors = [hashed(text, dimension) for text in batch.column("text").to_pylist()]
            column = pa.array(vectors, pa.list_(pa.float32()))
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, column], names=[*batch.schema.names, "embedding"]
            )

    schema = (
        f"{', '.join(f'{f.name} {f.dataType.simpleString()}' for f in rows.schema)}, embedding array<float>"
    )
    return rows.mapInArrow(embedded, schema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="Parquet or JSON files with id, title and body")
    parser.add_argument("lake", help="the lake: a folder or a URI")
    parser.add_argument("table", help="the table, namespace.name")
    parser.add_argument("--dimension", type=int, default=128)
    arguments = parser.parse_args()

    spark = vectorlake_spark.session(name="vectorlake ETL")
    rows = embed(clean(extract(spark, arguments.source)), arguments.dimension)

    lake = vl.connect(arguments.lake, application="spark-etl")
    if lake.exists(arguments.table):
        table = vectorlake_spark.upsert(rows, lake, arguments.table)
    else:
        vectors = {"embedding": arguments.dimension}
        table = vectorlake_spark.create_table(
            rows, lake, arguments.table, primary_key=["id"], vectors=vectors
        )
    table.compact()
    if table.indexes():
        table.optimize_indexes()
    else:
        table.create_index("embedding", "flat", metric="cosine")
    print(f"{arguments.table}: version {table.version}, {table.count()} rows, {len(table.indexes())} index")
    spark.stop()


if __name__ == "__main__":
    main()
