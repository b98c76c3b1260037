"""A model as a folder, `model.safetensors` beside a README.md that describes it, here or on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

from pointrend.checkpoints.native import Config, own_model, save
from pointrend.io import offline, write_text
from pointrend.models.attached import AttachedConfig
from pointrend.models.instance import InstanceConfig

FILE_NAME = "model.safetensors"
_SUFFIXES = (".safetensors", ".pkl", ".pth", ".pt")


def is_hub_name(name: str) -> bool:
    """Whether it may be a repository of the Hub, "user/name", rather than a misspelt file."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)) and not name.endswith(_SUFFIXES)


def fetch_from_hub(name: str) -> Path:
    """The `model.safetensors` of a Hub repository, downloaded once and kept in huggingface_hub's own cache.

    Only this file is fetched: no pickle and no code. POINTREND_OFFLINE and HF_HUB_OFFLINE forbid the network.

    Raises FileNotFoundError for a repository that is not there, is private, or lacks the file;
    ConnectionError where the network is off, forbidden or failed. Both say what to do.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE_NAME, local_files_only=offline()))
    except errors.LocalEntryNotFoundError as error:  # offline in any way, and not in the cache
        raise ConnectionError(
            f"{name}: no such file or folder here, no name of the zoo, and the Hugging Face Hub could not be "
            f"asked. Try again with a network (and without POINTREND_OFFLINE and HF_HUB_OFFLINE), or put "
            f"https://huggingface.co/{name}/resolve/main/{FILE_NAME} into a folder and name that"
        ) from error
    except errors.RepositoryNotFoundError as error:  # gated ones too
        raise FileNotFoundError(
            f"{name}: no such file or folder here, no name of the zoo (`pointrend zoo` lists them), and no "
            "repository of the Hugging Face Hub, or a private one: check the spelling, or log in with "
            "`hf auth login`"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: this repository of the Hugging Face Hub has no {FILE_NAME}, so it is no model of this "
            "package"
        ) from error
    except (OSError, ValueError) as error:
        raise ConnectionError(f"{name}: could not be fetched from the Hugging Face Hub ({error})") from error


def save_folder(model: nn.Module, folder: str | Path, *, extra: Mapping[str, object] | None = None) -> None:
    """Write `model.safetensors` and, where there is none yet, a README.md about it. Arguments as `native.save`."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder to write to, this is a file")
    save(model, folder / FILE_NAME, extra=extra)
    readme = folder / "README.md"
    if not readme.exists():
        write_text(readme, model_card(model, folder.resolve().name, extra))


def model_card(model: nn.Module, title: str, extra: Mapping[str, object] | None = None) -> str:
    """Markdown with the Hub's header. extra: where the weights come from, by name; the model's `origin` if None."""
    model = own_model(model)
    task, config = model.task, model.config
    names = config.class_names
    shown = ", ".join(names[:40]) + (f", .. {len(names)} in all" if len(names) > 40 else "")
    known = list(origin_lines(model.origin if extra is None else extra))
    return "\n".join(
        [
            "---",
            "library_name: pointrend",
            "pipeline_tag: image-segmentation",
            f"tags: [pointrend, {task}-segmentation]",
            "---",
            "",
            f"# {title}",
            "",
            f"{describe(config)}. {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters.",
            "",
            "```python",
            "import pointrend",
            "",
            f'model = pointrend.{type(model).__name__}.from_pretrained("user/{title}")  # or this folder',
            'result = pointrend.Predictor(model)(["image.jpg"])[0]',
            "```",
            "",
            f"Classes: {shown}.",
            "",
            "## Where the weights come from",
            "",
            *(known or ["Not recorded."]),
            "",
            "## Limits",
            "",
            "Made for images like those it was trained on. What is not written above about its training, its "
            "accuracy and the licence of its weights and data is not known from the file: add it here.",
            "",
        ]
    )


def origin_lines(values: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """A Markdown list of names and values, lists within it for dictionaries; dictionaries of numbers by name (scores
    of several ways to predict) become the columns of a table.
    """
    for name, value in values.items():
        title = name.replace("_", " ")
        if not isinstance(value, Mapping):
            yield f"{indent}- {title}: {value}"
        elif value and all(isinstance(column, Mapping) for column in value.values()):
            rows = dict.fromkeys(row for column in value.values() for row in column)
            yield from ("", f"| {title} | {' | '.join(value)} |", "| --- |" + " ---: |" * len(value))
            for row in rows:
                yield f"| {row} | {' | '.join(str(column.get(row, '-')) for column in value.values())} |"
            yield ""
        else:
            yield f"{indent}- {title}:"
            yield from origin_lines(value, indent + "  ")


def describe(config: Config) -> str:
    """One sentence about a model's configuration, without a full stop."""
    rend = None if isinstance(config, InstanceConfig) else config.point_rend
    points = "no point head" if rend is None else f"PointRend with {rend.num_points} points a step"
    if isinstance(config, AttachedConfig):
        name = f"{config.network.name or 'a network'} ({config.network.family})"
        return f"Semantic segmentation: {name}, {points}, {config.num_classes} classes"
    backbone = config.backbone
    stem = " with a deep stem" if backbone.deep_stem else ""
    if isinstance(config, InstanceConfig):
        masks = config.masks
        start, side = masks.start_size, masks.mask_size
        grid = f"a {start}x{start} grid to {side}x{side}, {masks.num_points} points a step"
        heads = {
            "pointrend": f"masks rendered point by point from {grid}",
            "implicit": f"a point head predicted for each box, from {grid}",
            "coarse": f"{masks.coarse_size}x{masks.coarse_size} masks",
        }
        head = heads.get(config.mask_head, f"masks by four convolutions ({config.mask_head})")
        network = f"Mask R-CNN with FPN, {backbone.name}{stem}"
        return f"Instance segmentation: {network}, {head}, {config.num_classes} classes"
    network = "SemanticFPN" if config.decoder == "fpn" else "DeepLabV3"
    if rend is not None and rend.subdivision_steps is not None:
        points += f", {rend.subdivision_steps} steps"
    return f"Semantic segmentation: {network}, {backbone.name}{stem}, {points}, {config.num_classes} classes"
