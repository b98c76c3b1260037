"""Files of mask refiners: safetensors whose metadata hold the configuration. Loading runs nothing from the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from pointrend.checkpoints.config_io import from_dict
from pointrend.checkpoints.native import compare, open_safetensors
from pointrend.io import atomic_write
from pointrend.models.mask_refiner import MaskRefiner, MaskRefinerConfig

FORMAT = "pointrend mask refiner"


def save_refiner(
    refiner: MaskRefiner, path: str | Path, *, extra: Mapping[str, object] | None = None
) -> None:
    """Write a refiner so that :func:`load_refiner` can build it again."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in refiner.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(refiner.config)),
        "extra": json.dumps(dict(extra or {})),
    }
    with atomic_write(path) as part:
        save_file(tensors, part, metadata)


def load_refiner(path: str | Path) -> MaskRefiner:
    """The refiner of a file, in evaluation mode, float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds no refiner.
    """
    try:
        metadata, tensors = open_safetensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its metadata lacks format={FORMAT!r}")
        config = from_dict(MaskRefinerConfig, json.loads(metadata["config"]))
        refiner = MaskRefiner(config)
        compare(refiner.state_dict(), tensors, source=str(path))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a mask refiner: {error}") from error
    refiner.load_state_dict(tensors)
    return refiner.eval()
