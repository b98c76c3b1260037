"""The ImageNet backbones of the zoo: whole entries, weights that fill what they were made for and nothing else."""

from __future__ import annotations

import hashlib

import pytest
import torch

from pointrend.checkpoints.imagenet import torchvision_name
from pointrend.models.backbones import BackboneConfig
from pointrend.models.feature_maps import build_backbone
from pointrend.training.paper import TRAININGS as RECIPES
from pointrend.zoo import PRETRAINED, fill_backbone


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTREND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    return tmp_path / "cache"


def torchvision_file(backbone, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {torchvision_name(backbone.config, name): t for name, t in backbone.state_dict().items()}
    torch.save(state, path)


@pytest.mark.parametrize("entry", PRETRAINED.values(), ids=lambda entry: entry.name)
def test_each_entry_is_whole(entry):
    assert entry.url.startswith("https://")
    assert entry.licence
    assert entry.pixels
    digits = entry.checksum.removeprefix("sha256:")
    assert len(digits) == (8 if entry.url.endswith(".pth") else 0)
    assert digits in entry.url
    assert len({other.file_name for other in PRETRAINED.values()}) == len(PRETRAINED)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_what_a_recipe_starts_from_is_here_and_fits_its_network(recipe):
    entry, ours = PRETRAINED[recipe.pretrained], recipe.network.backbone
    assert (entry.backbone, entry.stride_in_1x1, entry.deep_stem, entry.stem_width) == (
        ours.name,
        ours.stride_in_1x1,
        ours.deep_stem,
        ours.stem_width,
    )
    preprocessing = recipe.network.preprocessing
    assert entry.pixels.startswith(preprocessing.channel_order)
    assert ("deviation" in entry.pixels) == (preprocessing.std != (1.0, 1.0, 1.0))


def test_a_name_fills_the_backbone_from_the_cache(cache, monkeypatch):
    entry = PRETRAINED["torchvision/resnet18"]
    source = build_backbone(BackboneConfig("resnet18", norm="batch"))
    torchvision_file(source, cache / entry.file_name)
    digest = hashlib.sha256((cache / entry.file_name).read_bytes()).hexdigest()
    monkeypatch.setitem(
        PRETRAINED, entry.name, type(entry)(**{**vars(entry), "checksum": f"sha256:{digest[:8]}"})
    )
    backbone = build_backbone(BackboneConfig("resnet18"))
    assert fill_backbone(backbone, entry.name) is PRETRAINED[entry.name]
    assert torch.equal(backbone.res5[1].conv2.weight, source.res5[1].conv2.weight)


def test_another_file_under_that_name_is_refused(cache):
    entry = PRETRAINED["torchvision/resnet18"]
    torchvision_file(build_backbone(BackboneConfig("resnet18", norm="batch")), cache / entry.file_name)
    with pytest.raises(ValueError, match=r"expected f37072fd.."):
        fill_backbone(build_backbone(BackboneConfig("resnet18")), entry.name)


def test_files_of_ones_own_fill_it_too(tmp_path):
    source = build_backbone(BackboneConfig("resnet18", norm="batch"))
    torchvision_file(source, tmp_path / "mine.pth")
    backbone = build_backbone(BackboneConfig("resnet18"))
    assert fill_backbone(backbone, tmp_path / "mine.pth") is None
    assert torch.equal(backbone.res2[0].conv1.weight, source.res2[0].conv1.weight)


def test_weights_for_another_network_are_refused_before_they_are_fetched():
    with pytest.raises(ValueError, match=r"MSRA/R-50: made for resnet50 .* the network is resnet18"):
        fill_backbone(build_backbone(BackboneConfig("resnet18")), "MSRA/R-50")


def test_offline_says_what_to_fetch_and_where_to_put_it(cache):
    with pytest.raises(ConnectionError) as error:
        fill_backbone(build_backbone(BackboneConfig("resnet18")), "torchvision/resnet18")
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert str(cache / "torchvision_resnet18.pth") in str(error.value)


def test_a_misspelt_name_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no such file of backbone weights, and none of MSRA/R-50"):
        fill_backbone(build_backbone(BackboneConfig("resnet18")), tmp_path / "zzz")


def test_detectron2s_names_of_the_deeplab_stem_fill_ours(tmp_path):
    """R-103: three convolutions of 64, 64 and 128 channels, each with its norm."""
    config = BackboneConfig("resnet50", norm="batch", deep_stem=True, stem_width=64)
    source = build_backbone(config)
    theirs = {}
    for name, tensor in source.state_dict().items():
        stage, _, rest = name.partition(".")
        if stage == "stem":
            place, _, tail = rest.partition(".")
            number = int(place) // 3 + 1
            theirs[f"stem.conv{number}.{'norm.' if int(place) % 3 else ''}{tail}"] = tensor
        else:
            block, part, *tail = rest.split(".")
            known = {"bn1": "conv1.norm", "bn2": "conv2.norm", "bn3": "conv3.norm"}
            if part == "downsample":
                part, tail = ("shortcut", tail[1:]) if tail[0] == "0" else ("shortcut.norm", tail[1:])
            theirs[".".join([stage, block, known.get(part, part), *tail])] = tensor
    torch.save(theirs, tmp_path / "R-103.pth")
    backbone = build_backbone(config)
    fill_backbone(backbone, tmp_path / "R-103.pth")
    assert all(torch.equal(backbone.state_dict()[name], t) for name, t in source.state_dict().items())
