"""A folder or a bucket through Ray Data into Parquet: python examples/cluster/ray_data.py images/ rows/ [workers]."""

from __future__ import annotations

import sys

import ray

from pointrend.batch import Segmenter


def main(images: str, out: str, workers: int = 2) -> None:
    """Segment what `images` names and write `out`."""
    rows = ray.data.read_images(images, include_paths=True, mode="RGB").map_batches(
        Segmenter,
        fn_constructor_args=["photo-semantic"],
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    rows.write_parquet(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
