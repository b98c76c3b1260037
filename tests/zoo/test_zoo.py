"""The zoo's entries are whole, build what was published, and load from a file, the cache or the network."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
import torch

import pointrend
from pointrend.checkpoints import native as files
from pointrend.checkpoints.detectron2 import to_detectron2
from pointrend.checkpoints.native import build, read_info, save
from pointrend.models.backbones import BackboneConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.training.paper import find_recipe
from pointrend.zoo import ZOO, Entry, load

# Published on the projects' model pages, in millions.
PUBLISHED_PARAMETERS = {
    "pointrend_rcnn_R_50_FPN_3x_coco": 60,
    "pointrend_rcnn_R_101_FPN_3x_coco": 79,
    "pointrend_rcnn_X_101_32x8d_FPN_3x_coco": 123,
    "pointrend_rcnn_R_50_FPN_1x_cityscapes": 56,
    "pointrend_semantic_R_101_FPN_1x_cityscapes": 48,
}
SMALL = SemanticConfig(
    tuple(f"class {i}" for i in range(3)),
    backbone=BackboneConfig("resnet18"),
    preprocessing=ZOO["pointrend_semantic_R_101_FPN_1x_cityscapes"].config().preprocessing,
    fpn_channels=8,
    decoder_channels=16,
    point_rend=SemanticPointRendConfig(width=8, coarse_each_layer=False, subdivision_steps=2),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTREND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POINTREND_OFFLINE", "1")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """An entry for a tiny model, and its published file."""

    class Small(Entry):
        def config(self):
            return SMALL

    fields = vars(ZOO["pointrend_semantic_R_101_FPN_1x_cityscapes"]) | {"name": "small", "checksum": ""}
    monkeypatch.setitem(ZOO, "small", Small(**fields))
    to_detectron2(SemanticSegmenter(SMALL), tmp_path / "small.pkl")
    return tmp_path / "small.pkl"


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_each_entry_builds_a_model_of_the_published_size(entry):
    with torch.device("meta"):
        model = build(entry.config())
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    if entry.name in PUBLISHED_PARAMETERS:
        assert round(entry.parameters / 1e6) == PUBLISHED_PARAMETERS[entry.name]
    if entry.mebibytes is not None:  # the file has the names beside the tensors
        size = sum(t.numel() * 4 for t in model.state_dict().values()) / 2**20
        assert size < entry.mebibytes < size + 0.1


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_each_entry_says_where_it_comes_from(entry):
    assert find_recipe(entry.training or entry.name).recipe.steps > 0
    assert all(0 < value < 100 for _, value in entry.scores)
    if not entry.url:
        assert entry.name.startswith("implicit_") or entry.project == "paper"
        return
    assert entry.log.startswith(entry.url.rpartition("/")[0])
    assert entry.log.endswith("metrics.json" if entry.project == "Detectron2" else ".log.json")
    assert bool(entry.model_id) == (entry.project == "Detectron2")
    assert entry.url.startswith("https://")
    assert entry.file_name.endswith((".pkl", ".pth"))
    if entry.project == "Detectron2":
        assert f"/{entry.name}/" in entry.url
    assert all(0 < value < 100 for _, value in entry.scores)
    assert entry.licence
    assert ("non-commercial" in entry.licence) == (entry.data == "Cityscapes")
    algorithm, _, digits = entry.checksum.partition(":")
    assert (algorithm, len(digits)) == (("md5", 6) if entry.project == "Detectron2" else ("sha256", 8))
    assert digits in entry.file_name


def test_a_published_file_loads_by_name(small):
    model = load("small", small)
    assert model.config == SMALL
    assert isinstance(model, SemanticSegmenter)


def test_a_file_in_the_cache_is_converted_once(small, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    small.rename(cache / ZOO["small"].file_name)
    first = load("small")
    info = read_info(cache / "small.safetensors")
    assert info.extra["url"] == ZOO["small"].url
    assert len(info.extra["sha256"]) == 64
    (cache / ZOO["small"].file_name).unlink()
    again = load("small")
    assert all(torch.equal(again.state_dict()[name], t) for name, t in first.state_dict().items())


def test_who_loads_while_another_converts_waits_for_its_file(small, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    small.rename(cache / ZOO["small"].file_name)
    begun, go_on, conversions = threading.Event(), threading.Event(), []

    def slowly(entry, path):
        conversions.append(path)
        begun.set()
        go_on.wait(60)
        return convert(entry, path)

    convert = pointrend.zoo._convert
    monkeypatch.setattr("pointrend.zoo._convert", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(load, "small")
        assert begun.wait(60)
        second = pool.submit(load, "small")
        assert second in wait([second], timeout=0.5).not_done
        go_on.set()
        assert second.result(60).config == first.result(60).config == SMALL
    assert len(conversions) == 1


def test_a_converted_file_that_is_damaged_says_what_to_do(small, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    small.rename(cache / ZOO["small"].file_name)
    load("small")
    converted = cache / "small.safetensors"
    data = bytearray(converted.read_bytes())
    data[-1] ^= 1
    converted.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"damaged.*; remove .*small\.safetensors, and it is converted again"
    ):
        load("small")


def test_offline_says_what_to_fetch_and_where_to_put_it(tmp_path):
    name = "pointrend_rcnn_R_50_FPN_3x_coco"
    with pytest.raises(ConnectionError) as error:
        load(name)
    assert ZOO[name].url in str(error.value)
    assert str(tmp_path / "cache" / "model_final_edd263.pkl") in str(error.value)


def test_models_without_published_weights_say_so():
    with pytest.raises(ValueError, match="no weights were published; train it"):
        load("implicit_pointrend_R_50_FPN_1x_coco")


def test_the_file_of_another_model_is_refused(small):
    with pytest.raises(ValueError, match=r"not the file of pointrend_semantic_R_101_FPN_1x_cityscapes \("):
        load("pointrend_semantic_R_101_FPN_1x_cityscapes", small)


def test_paths_load_whatever_wrote_them(small, tmp_path, monkeypatch):
    foreign = load(small)
    assert foreign.config == SMALL
    save(foreign, tmp_path / "ours.safetensors")
    assert load(tmp_path / "ours.safetensors").config == SMALL
    assert load(str(tmp_path / "ours.safetensors")).config == SMALL
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/ours.safetensors").config == SMALL


def test_misspelt_names_and_missing_files_are_told_apart_kindly(tmp_path):
    with pytest.raises(FileNotFoundError, match="did you mean pointrend_rcnn_R_50_FPN_3x_coco"):
        load("pointrend_rcnn_R_50_FPN_3x_cocoo")
    with pytest.raises(FileNotFoundError, match="did you mean photo-semantic"):
        load("photo_semantic")
    with pytest.raises(FileNotFoundError, match="refine_mask"):
        load("mask-refiner")
    with pytest.raises(FileNotFoundError, match=r"it has photo-semantic, .*pointrend_rcnn"):
        load(tmp_path / "zzz")
    with pytest.raises(ValueError, match="goes with a name of the zoo"):
        load(tmp_path / "zzz", weights=tmp_path / "x")


def test_the_front_door_has_it():
    assert pointrend.load is load


def test_importing_the_zoo_imports_neither_torch_nor_anything_heavier():
    code = (
        "import sys, pointrend.zoo as z; list(z.ZOO);"
        "print(*[m for m in ('torch', 'torchvision', 'numpy') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


def test_loading_a_model_imports_neither_training_nor_data(small, tmp_path):
    save(load(small), tmp_path / "ours.safetensors")
    code = (
        f"import sys, pointrend; [pointrend.load(p) for p in ({str(tmp_path / 'ours.safetensors')!r}, {str(small)!r})];"
        "print(*[m for m in sys.modules if m.startswith(('accelerate', 'pointrend.training', 'pointrend.data'))])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


def test_a_half_converted_file_is_never_left(small, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    small.rename(cache / ZOO["small"].file_name)

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "save", full)
    with pytest.raises(OSError, match="no space"):
        load("small")
    assert not (cache / "small.safetensors").exists()


def test_a_published_file_is_recognised_by_its_hash_and_no_other(small, tmp_path, monkeypatch):
    path = tmp_path / ZOO["small"].file_name
    small.rename(path)
    assert load(path).origin == {"converted_from": path.name}
    digest = files.hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    known = Entry(**(vars(ZOO["small"]) | {"checksum": f"md5:{digest[:6]}"}))
    monkeypatch.setattr(
        type(ZOO["small"]), "config", lambda self: replace(SMALL, class_names=("a", "b", "c"))
    )
    monkeypatch.setitem(ZOO, "small", type(ZOO["small"])(**vars(known)))
    model = load(path)
    assert model.origin["name"] == "small"
    assert model.config.class_names == ("a", "b", "c")
