"""A row for each image: what jobs write, and what frameworks for tables of data get. Masks as run lengths, never dense.

    image        path or address, as it was given
    id           what the list calls it, or null
    version      what changes when the image does: size and time of change, or the store's ETag
    height, width
    boxes        D times [x1, y1, x2, y2], pixels
    labels       D class numbers from 0
    class_names  D names
    scores       D, 0..1
    masks        D texts: compressed COCO run lengths ("counts") of the whole image

Of a label map there is an object for each class that occurs, with score 1 and its mask's box.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

from pointrend.masks.export import as_objects
from pointrend.masks.rle import encode_windows, measure
from pointrend.predict.tasks import key_of
from pointrend.results import Result
from pointrend.structures import class_name

Row = dict[str, Any]
PartFormat = Literal["jsonl", "parquet", "coco"]
SUFFIXES: dict[PartFormat, str] = {"jsonl": ".jsonl", "parquet": ".parquet", "coco": ".json"}


def result_columns(result: Result) -> Row:
    """The columns from `height` on."""
    objects = as_objects(result)
    height, width = map(int, objects.masks.image_size)
    labels = objects.labels.tolist()
    return {
        "height": height,
        "width": width,
        "boxes": [[round(x, 4) for x in box] for box in objects.boxes.tolist()],
        "labels": labels,
        "class_names": [class_name(objects.class_names, label) for label in labels],
        "scores": objects.scores.tolist(),
        "masks": [mask["counts"] for mask in encode_windows(objects.masks)],
    }


def encode_rows(
    rows: Sequence[Row], kind: PartFormat, categories: Sequence[Mapping[str, object]] = ()
) -> bytes:
    """A file of these rows.

    Args:
        categories: for COCO files, `id` and `name` of each of the K classes.

    Raises:
        ImportError: pyarrow is not installed and the format needs it.
    """
    if kind == "parquet":
        return _parquet(arrow_table(rows))
    if kind == "jsonl":
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    records = (record for row in rows for record in _coco_records(row, categories))
    return _coco(
        [{"id": number, **record} for number, record in enumerate(records, 1)],
        [_coco_image(row) for row in rows],
        categories,
    )


def row_versions(content: bytes, kind: PartFormat) -> list[tuple[int, str]]:
    """Key (see `Task.key`) and version of each row of a file.

    Raises:
        ValueError: it is no file of `encode_rows`.
    """
    with _decoding():
        if kind == "parquet":
            table = _parquet_file(content).read(columns=["image", "id", "version"])
            return [(key_of(row["image"], row["id"]), row["version"]) for row in table.to_pylist()]
        if kind == "jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            return [(key_of(row["image"], row["id"]), row["version"]) for row in rows]
        images = json.loads(content)["images"]
        return [(key_of(one["file_name"], one["own_id"]), one["version"]) for one in images]


def drop_rows(content: bytes, kind: PartFormat, keys: Collection[int]) -> bytes:
    """The file without the rows of these keys; empty if none is left.

    Raises:
        ValueError: it is no file of `encode_rows`.
    """
    kept = [number for number, (key, _) in enumerate(row_versions(content, kind)) if key not in keys]
    if not kept:
        return b""
    with _decoding():
        if kind == "parquet":
            return _parquet(_parquet_file(content).read().take(kept))
        if kind == "jsonl":
            lines = content.splitlines(keepends=True)
            return b"".join(lines[number] for number in kept)
        file = json.loads(content)
        images = [file["images"][number] for number in kept]
        there = {one["id"] for one in images}
        records = [record for record in file["annotations"] if record["image_id"] in there]
        return _coco(records, images, file["categories"])


def arrow_table(rows: Sequence[Row]) -> Any:
    """The rows as a `pyarrow.Table` of the columns above; ids become text.

    Raises:
        ImportError: pyarrow is not installed.
    """
    arrow = pyarrow()
    number, text = arrow.int32(), arrow.string()
    schema = {
        "image": text,
        "id": text,
        "version": text,
        "height": number,
        "width": number,
        "boxes": arrow.list_(arrow.list_(arrow.float32())),
        "labels": arrow.list_(number),
        "class_names": arrow.list_(text),
        "scores": arrow.list_(arrow.float32()),
        "masks": arrow.list_(text),
    }
    plain = [row | {"id": None if row["id"] is None else str(row["id"])} for row in rows]
    return arrow.Table.from_pylist(plain, arrow.schema(schema))


def pyarrow() -> ModuleType:
    """The package.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow; install it with: pip install 'pointrend[parquet]', or choose --format jsonl"
        ) from error
    return pyarrow


def coco_image_id(row: Row) -> int | str:
    """The list's id; else 53 bits of the image's path, which are the same in every part and every run."""
    own: int | str | None = row["id"]
    return own if own is not None else key_of(row["image"], None) % 2**53


def _coco(records: Sequence[Row], images: Sequence[Row], categories: Sequence[Mapping[str, object]]) -> bytes:
    content = {"annotations": records, "images": images, "categories": list(categories)}
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _coco_image(row: Row) -> Row:
    return {
        "id": coco_image_id(row),
        "file_name": row["image"],
        "height": row["height"],
        "width": row["width"],
        "own_id": row["id"],
        "version": row["version"],
    }


def _coco_records(row: Row, categories: Sequence[Mapping[str, object]]) -> Iterator[Row]:
    _, areas = measure(row["masks"])
    found = zip(row["boxes"], row["labels"], row["scores"], row["masks"], areas.tolist(), strict=True)
    for (x1, y1, x2, y2), label, score, counts, area in found:
        yield {
            "image_id": coco_image_id(row),
            "category_id": categories[label]["id"],
            "bbox": [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)],
            "score": score,
            "segmentation": {"size": [row["height"], row["width"]], "counts": counts},
            "area": float(area),
            "iscrowd": 0,
        }


def _parquet(table: object) -> bytes:
    buffer = io.BytesIO()
    pyarrow().parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _parquet_file(content: bytes) -> Any:
    return pyarrow().parquet.ParquetFile(io.BytesIO(content))


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # pyarrow has exceptions of its own
        raise ValueError(f"not a part that a job has written ({error or type(error).__name__})") from error
