"""A model as a folder or a repository of the Hub: written, described, found, and refused kindly. No network."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from pointrend.checkpoints.hub import describe, fetch_from_hub, is_hub_name
from pointrend.checkpoints.native import _digest, read_info
from pointrend.models.backbones import BackboneConfig
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.zoo import ZOO, load

CONFIG = SemanticConfig(
    ("sky", "road"),
    backbone=BackboneConfig("resnet18"),
    fpn_channels=8,
    decoder_channels=16,
    point_rend=SemanticPointRendConfig(width=8),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTREND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POINTREND_OFFLINE", "1")


@pytest.fixture(scope="module")
def model():
    return SemanticSegmenter(CONFIG).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "crisp-roads"
    model.save_pretrained(folder, extra={"data": "my streets", "licence": "CC0"})
    return folder


def answer(monkeypatch, value):
    """hf_hub_download gives this path, or raises this."""

    def download(name, file, **_):
        assert file == "model.safetensors"
        if isinstance(value, Exception):
            raise value
        return str(value)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def test_what_is_saved_comes_back(folder, model):
    for source in (folder, str(folder), folder / "model.safetensors"):
        again = SemanticSegmenter.from_pretrained(source)
        assert again.config == CONFIG
        assert not again.training
        assert all(torch.equal(again.state_dict()[n], t) for n, t in model.state_dict().items())
    assert load(folder).origin == {"data": "my streets", "licence": "CC0"}


def test_the_card_says_what_it_is_and_where_it_comes_from(folder):
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: pointrend\n")
    for part in ("# crisp-roads", "sky, road", "resnet18", "data: my streets", "licence: CC0", "Limits"):
        assert part in text


def test_a_readme_of_ones_own_is_kept(model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "model.safetensors"}


def test_where_weights_come_from_goes_along(folder, tmp_path):
    load(folder).save_pretrained(tmp_path / "copy")
    assert read_info(tmp_path / "copy" / "model.safetensors").extra["licence"] == "CC0"
    assert "licence: CC0" in (tmp_path / "copy" / "README.md").read_text()


def test_the_other_kind_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"expected a model for instance.*SemanticSegmenter\.from_pretrained"
    ):
        InstanceSegmenter.from_pretrained(folder)


def test_the_other_kind_is_refused_before_anything_is_fetched():
    with pytest.raises(ValueError, match="this one is for instance segmentation"):
        SemanticSegmenter.from_pretrained("pointrend_rcnn_R_50_FPN_3x_coco")


def test_zoo_names_load_by_class_too():
    with pytest.raises(ConnectionError, match="POINTREND_OFFLINE"):
        InstanceSegmenter.from_pretrained("pointrend_rcnn_R_50_FPN_3x_coco")


def test_names_of_the_hub(monkeypatch, folder):
    answer(monkeypatch, folder / "model.safetensors")
    assert SemanticSegmenter.from_pretrained("me/crisp-roads").config == CONFIG
    assert load("me/crisp-roads").config == CONFIG


def test_offline_says_what_to_fetch():
    with pytest.raises(
        ConnectionError, match=r"https://huggingface\.co/nobody/nothing-here/resolve/main/model"
    ):
        load("nobody/nothing-here")


def response(status):
    """What the Hub's errors want to hold; its class differs between versions of huggingface_hub."""
    import inspect

    module = inspect.getmodule(inspect.getmro(errors.HfHubHTTPError)[1])
    names = {name: getattr(errors, name, None) for name in ("Response",)}
    kind = names["Response"] or getattr(module, "Response", None)
    request = getattr(inspect.getmodule(kind), "Request", None)
    try:
        return kind(status, request=request("GET", "https://huggingface.co/x/y"))
    except TypeError:  # requests' own, before 1.0
        return kind()


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (errors.RepositoryNotFoundError, FileNotFoundError, "check the spelling, or log in"),
        (errors.EntryNotFoundError, FileNotFoundError, "has no model.safetensors"),
        (OSError, ConnectionError, "could not be fetched"),
        (errors.HFValidationError, ConnectionError, "could not be fetched"),
    ],
)
def test_failures_say_what_to_do(monkeypatch, error, expected, message):
    try:
        failure = error("no")
    except TypeError:
        failure = error("no", response=response(404))
    answer(monkeypatch, failure)
    with pytest.raises(expected, match=message):
        fetch_from_hub("a/b")


def test_a_file_name_is_no_repository():
    assert is_hub_name("user/pointrend-r50_3x.coco")
    for name in ("model.safetensors", "runs/model.safetensors", "a/b/c", "/a/b", "../b", "a/", "x"):
        assert not is_hub_name(name)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors in this folder"):
        load(tmp_path)


def test_a_file_in_the_way_of_the_folder_is_refused(model, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="expected a folder"):
        model.save_pretrained(tmp_path / "x")


def test_a_file_whose_origin_is_no_dictionary_is_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    metadata = header["__metadata__"] | {"extra": "[1]"}
    tensors = load_file(path)
    save_file(tensors, path, metadata | {"sha256": _digest(metadata, tensors)})
    with pytest.raises(ValueError, match="extra: expected a dictionary"):
        load(path)


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_every_published_model_is_described_in_a_sentence(entry):
    text = describe(entry.config())
    assert text.startswith(entry.task.capitalize())
    assert f"{entry.config().num_classes} classes" in text
