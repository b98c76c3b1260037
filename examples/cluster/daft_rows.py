"""A folder or a bucket through Daft into Parquet: python examples/cluster/daft_rows.py "images/*.png" rows/."""

from __future__ import annotations

import sys

import daft
from daft import DataType, Series, col

from pointrend.batch import Segmenter

ROW = DataType.struct(
    {
        "class_names": DataType.list(DataType.string()),
        "scores": DataType.list(DataType.float64()),
        "masks": DataType.list(DataType.string()),
        "error": DataType.string(),
    }
)


@daft.cls
class Rows:
    """A model in each worker."""

    def __init__(self, model: str) -> None:
        self.segmenter = Segmenter(model)

    @daft.method.batch(return_dtype=ROW)
    def __call__(self, paths: Series) -> list[dict[str, object]]:
        """A row for each path."""
        columns = self.segmenter({"path": [one.removeprefix("file://") for one in paths.to_pylist()]})
        names = ("class_names", "scores", "masks", "error")
        return [
            dict(zip(names, values, strict=True)) for values in zip(*(columns[n] for n in names), strict=True)
        ]


def main(images: str, out: str) -> None:
    """Segment what `images` names and write `out`."""
    segment = Rows("photo-semantic")
    files = daft.from_glob_path(images)
    files.select(col("path"), segment(col("path")).alias("found")).write_parquet(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
