"""Our checkpoints describe themselves, come back exactly, and are refused whole when anything is off."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from pointrend.checkpoints.config_io import from_dict, rename_fields
from pointrend.checkpoints.native import (
    RENAMED_FIELDS,
    _config_class,
    _digest,
    _sum,
    build,
    compare,
    load,
    read_info,
    save,
)
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter

CONFIG = SemanticConfig(
    class_names=("sky", "Straße"),
    palette=((0, 0, 0), (255, 0, 255)),
    backbone=BackboneConfig("mobilenet_v2"),
    preprocessing=Preprocessing(mean=(1, 2, 3), channel_order="BGR"),
    fpn_channels=16,
    decoder_channels=16,
    point_rend=SemanticPointRendConfig(width=8, num_points=7),
)


@pytest.fixture(scope="module")
def model():
    return SemanticSegmenter(CONFIG).eval()


@pytest.fixture
def path(model, tmp_path):
    save(model, tmp_path / "model.safetensors", extra={"trained on": "shapes"})
    return tmp_path / "model.safetensors"


def rewrite(path, *, tensors=None, **metadata):
    """The same file with other metadata (None drops an entry) or tensors, and a sum that fits unless one is given."""
    with safe_open(path, "pt") as file:
        old = file.metadata()
    tensors = load_file(path) if tensors is None else tensors
    kept = {k: v for k, v in (old | metadata).items() if v is not None}
    if "sha256" not in metadata:
        kept["sha256"] = _digest(kept, tensors)
    save_file(tensors, path, kept)


def test_a_model_comes_back_exactly(model, path):
    loaded = load(path)
    assert loaded.config == CONFIG
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    image = torch.randint(0, 256, (3, 33, 50), dtype=torch.uint8)
    assert torch.equal(loaded.predict([image])[0].labels, model.predict([image])[0].labels)


def test_the_header_tells_what_it_is_without_reading_tensors(path):
    info = read_info(path)
    assert (info.task, info.config, info.extra) == ("semantic", CONFIG, {"trained on": "shapes"})


def test_saving_leaves_no_other_file_and_replaces_whole(model, path):
    save(model, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert read_info(path).extra == {}


def test_a_failed_save_leaves_the_old_file(model, path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pointrend.checkpoints.native.save_file", full)
    with pytest.raises(OSError, match="no space"):
        save(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_only_our_models_are_saved(tmp_path):
    with pytest.raises(ValueError, match="got Linear"):
        save(nn.Linear(1, 1), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_every_missing_extra_and_misshaped_tensor_is_listed(path):
    tensors = load_file(path)
    weight = tensors.pop("decoder.predictor.weight")
    tensors["decoder.predictor.bias"] = torch.zeros(7)
    tensors["surplus"] = torch.zeros(2, 3)
    rewrite(path, tensors=tensors)
    with pytest.raises(ValueError, match="do not fit the model") as error:
        load(path)
    assert f"missing: decoder.predictor.weight {tuple(weight.shape)}" in str(error.value)
    assert "not in the model: surplus (2, 3)" in str(error.value)
    assert "decoder.predictor.bias: expected (2,), got (7,)" in str(error.value)


def test_long_lists_of_differences_are_cut():
    expected = {f"layer{i}": torch.zeros(1) for i in range(100)}
    with pytest.raises(ValueError, match="and 60 more"):
        compare(expected, {}, source="x")


def test_a_flipped_bit_is_noticed_wherever_it_is(path):
    good = path.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    with safe_open(path, "pt") as file:
        entries = file.metadata()
    assert {"format", "version", "task", "config", "extra", "sha256"} == set(entries)
    # The order of a header's entries differs from file to file: find each of them.
    places = [good.index(f'"{key}":"'.encode()) + len(key) + 4 for key in entries]
    places += [3, 9, *range(20, start - 8, start // 100), start, (start + len(good)) // 2, len(good) - 1]
    for place in places:
        data = bytearray(good)
        data[place] ^= 4
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load(path)


def test_files_whose_sum_covers_less_are_still_read(model, path):
    """The first version summed the configuration and the tensors alone."""
    with safe_open(path, "pt") as file:
        config = file.metadata()["config"]
    rewrite(path, sha256=_sum(config, load_file(path)))
    assert load(path).config == CONFIG
    rewrite(path, sha256=_sum(config + " ", load_file(path)))
    with pytest.raises(ValueError, match="damaged"):
        load(path)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 5000, -1])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load(path)


def test_a_small_file_cannot_describe_a_model_that_fills_the_memory(path):
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    config["decoder_channels"] = 2**20
    rewrite(path, config=json.dumps(config))
    with pytest.raises(ValueError, match=r"decoder.predictor.weight: expected \(2, 1048576, 1, 1\)"):
        load(path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"coarse_stride": 5}, "coarse stride: expected .* got 5"), ({"levels": ["p1"]}, "levels: expected")],
)
def test_a_configuration_that_no_model_has_is_refused_with_the_files_name(path, setting, message):
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    rewrite(path, config=json.dumps(config | setting))
    with pytest.raises(ValueError, match=rf"model\.safetensors: its model cannot be built: {message}"):
        load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "no checkpoint of this package"),
        ({"task": "panoptic"}, "expected 'instance' or 'semantic', got 'panoptic'"),
        ({"sha256": "0"}, "damaged"),
    ],
)
def test_wrong_metadata_is_refused(path, metadata, message):
    rewrite(path, **metadata)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_unknown_settings_name_the_version_that_wrote_them(path):
    rewrite(path, config=json.dumps({"class_names": ["a", "b"], "mood": 1}), version="9.0")
    with pytest.raises(ValueError, match=r"version 9.0.*unknown fields mood"):
        load(path)


# Configurations as files of before 0.1.0 hold them, where they say something else than the defaults.
OLD_SEMANTIC = {
    "class_names": ["a", "b"],
    "backbone": {"name": "resnet18"},
    "head": "fpn",
    "fpn_channels": 16,
    "head_channels": 16,
    "head_norm": "BN",
    "point_rend": {"width": 8, "count": 7, "steps": 2, "sampling": {"count": 9}},
}
OLD_INSTANCE = {
    "class_names": ["a"],
    "backbone": {"name": "resnet18"},
    "head": "implicit",
    "fpn_channels": 8,
    "boxes": {"width": 8},
    "masks": {
        "side": 14,
        "coarse_side": 5,
        "points": 25,
        "width": 4,
        "coarse_width": 4,
        "sampling": {"count": 36},
    },
}


@pytest.mark.parametrize(("task", "old"), [("semantic", OLD_SEMANTIC), ("instance", OLD_INSTANCE)])
def test_files_of_before_fields_were_renamed_still_load(tmp_path, task, old):
    model = build(from_dict(_config_class(task), rename_fields(old, RENAMED_FIELDS[task])))
    save(model, tmp_path / "old.safetensors")
    tensors = {
        name.replace("decoder.", "head.", 1) if name.startswith("decoder.") else name: tensor
        for name, tensor in model.state_dict().items()
    }
    rewrite(tmp_path / "old.safetensors", tensors=tensors, task=None, kind=task, config=json.dumps(old))
    assert not any(name.startswith("decoder.") for name in load_file(tmp_path / "old.safetensors"))
    loaded = load(tmp_path / "old.safetensors")
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_old_fields_mean_what_they_meant():
    semantic = from_dict(_config_class("semantic"), rename_fields(OLD_SEMANTIC, RENAMED_FIELDS["semantic"]))
    rend = semantic.point_rend
    assert (rend.num_points, rend.subdivision_steps, rend.sampling.num_points) == (7, 2, 9)
    assert (semantic.decoder, semantic.decoder_channels, semantic.decoder_norm) == ("fpn", 16, "BN")
    instance = from_dict(_config_class("instance"), rename_fields(OLD_INSTANCE, RENAMED_FIELDS["instance"]))
    masks = instance.masks
    assert (masks.mask_size, masks.coarse_size, masks.num_points, masks.sampling.num_points) == (
        14,
        5,
        25,
        36,
    )
    assert instance.mask_head == "implicit"


def test_other_files_are_refused(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere.safetensors")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(tmp_path / "x.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of this package"):
        load(tmp_path / "a.safetensors")


def test_half_precision_survives(tmp_path):
    model = SemanticSegmenter(replace(CONFIG, point_rend=None))
    model.half()
    save(model, tmp_path / "h.safetensors")
    assert load_file(tmp_path / "h.safetensors")["decoder.predictor.weight"].dtype == torch.float16
    assert load(tmp_path / "h.safetensors").decoder.predictor.weight.dtype == torch.float32


def test_weights_of_a_diverged_training_are_refused_by_name(tmp_path):
    model = SemanticSegmenter(replace(CONFIG, point_rend=None))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    save(model, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinite: backbone\.stem"):
        load(tmp_path / "x.safetensors")
