"""A folder or a bucket through Spark into Parquet: spark-submit examples/cluster/spark_rows.py images/ rows/."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession

from pointrend.batch import Segmenter

SCHEMA = (
    "path string, height int, width int, boxes array<array<double>>, labels array<int>, "
    "class_names array<string>, scores array<double>, masks array<string>, error string"
)


def rows(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Of one partition, with one model for all its batches."""
    segmenter = Segmenter("photo-semantic")
    for frame in frames:
        yield pd.DataFrame(segmenter(frame.rename(columns={"content": "bytes"})[["path", "bytes"]]))


def main(images: str, out: str) -> None:
    """Segment what `images` names and write `out`."""
    spark = SparkSession.builder.appName("pointrend").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "16")
    files = spark.read.format("binaryFile").option("pathGlobFilter", "*.{jpg,png}").load(images)
    files.select("path", "content").mapInPandas(rows, SCHEMA).write.parquet(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
