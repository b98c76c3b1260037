"""Semantic models give MMSegmentation's stored numbers, on every model and image found in the reference.

Weights are made from their names (make_checkpoint.py), saved as a zoo checkpoint and loaded as any other.
float32 and float64 of the original differ by less than 1e-4 in all logits. A point at the end of the ranking
may be exchanged for the next; the cells around it are then left out (`rounding.py`). Which cells of a map were
stored is told by the stored shapes.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointrend.checkpoints.key_mapping import translate
from pointrend.checkpoints.openmmlab import SEMANTIC, from_mmsegmentation
from pointrend.core import PointSampling, margin_uncertainty, point_sample, sample_training_points
from pointrend.models.inputs import batch_images, resize_image
from pointrend.models.tta import AugmentedSemantic, SlidingSemantic
from pointrend.structures import SemanticTarget
from tests.reference.discovery import ROOT, Golden, mmsegmentation
from tests.reference.rounding import SHIFT, around, watched

TOLERANCE = 1e-3
EXCHANGED = 4  # points of 8196 in a step, as the reference's authors allow


MODELS = {golden.id: golden for golden in mmsegmentation()}
if not MODELS:
    pytest.skip(f"no reference outputs in {ROOT}: set POINTREND_REFERENCE", allow_module_level=True)


class Reference:
    """A model with its stand-in weights and everything stored about it."""

    def __init__(self, source: Golden, folder: Path) -> None:
        self.source, self.golden = source, source.content
        with np.load(source.arrays()) as file:
            self.stored = {key: file[key] for key in file.files}
        make, shapes, seed = source.maker(), source.shapes(), self.golden["seed"]
        for key, crc in self.golden["weights_crc32"].items():
            assert zlib.crc32(make.make_tensor(key, shapes[key], seed)) == crc, "other weights than recorded"
        path = folder / "weights.pth"
        make.save_checkpoint(path, shapes, seed, legacy=True)
        self.model = from_mmsegmentation(path)
        path.unlink()
        if self.model.config.num_classes == 150:  # ADE20K's test size leaves no trace in a file
            preprocessing = dataclasses.replace(self.model.config.preprocessing, short_edge=512)
            self.model.config = dataclasses.replace(self.model.config, preprocessing=preprocessing)
        self.runs: dict[str, Run] = {}

    def image(self, name: str) -> torch.Tensor:
        """uint8 (3, H, W) in RGB; the file has BGR."""
        with np.load(self.source.file("inputs.npz")) as file:
            return torch.from_numpy(file[name][..., ::-1].copy()).permute(2, 0, 1).contiguous()

    def run(self, name: str) -> Run:
        if name not in self.runs:
            self.runs[name] = Run(self, name)
        return self.runs[name]


class Run:
    """What our model computes for one image at its own size."""

    def __init__(self, reference: Reference, name: str) -> None:
        model = reference.model
        self.stored = {
            key[2:]: array for key, array in reference.stored.items() if key.startswith(f"{name}_")
        }
        image = reference.image(name)
        self.batch = batch_images([image], model.config.preprocessing)
        self.trace: list = []
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            self.maps = model.features(self.batch.tensor)
            self.coarse = model.coarse(dict(self.maps))
            patch.setattr(model, "features", lambda _: dict(self.maps))
            patch.setattr(model.point_rend.head, "fast", False)
            self.logits = model.logits(self.batch, trace=self.trace)[0]

    def exchanged(self) -> torch.Tensor:
        """(H, W) bool: near a point that only one of the two refined."""
        total = torch.zeros(self.batch.padded_size, dtype=torch.bool)
        for step, only_one in zip(self.trace, self.only_one(), strict=True):
            total |= around(only_one.view(step.size), self.batch.padded_size)
        return total

    def only_one(self) -> Iterator[torch.Tensor]:
        """For every step, (h * w,) bool: refined by one of the two and not by the other."""
        for number, step in enumerate(self.trace, 1):
            flags = torch.zeros(2, step.size[0] * step.size[1], dtype=torch.bool)
            flags[0, step.index[0]] = True
            flags[1, torch.from_numpy(self.stored[f"step{number}_idx"]).long()] = True
            yield flags[0] ^ flags[1]


@pytest.fixture(scope="module", params=list(MODELS))
def reference(request, tmp_path_factory):
    return Reference(MODELS[request.param], tmp_path_factory.mktemp("weights"))


@pytest.fixture(params=["A", "B", "C"])
def run(request, reference):
    if request.param not in reference.golden:
        pytest.skip(f"no image {request.param} stored")
    return reference.run(request.param)


def thinned(ours: torch.Tensor, theirs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours at the stored cells: along each axis every s-th, s being the power of two that fits."""
    for axis, (full, kept) in enumerate(zip(ours.shape, theirs.shape, strict=True)):
        stride = next(2**i for i in range(12) if -(-full // 2**i) == kept)
        ours = ours.index_select(axis, torch.arange(0, full, stride))
    return ours, torch.from_numpy(theirs)


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = TOLERANCE) -> None:
    mine, stored = thinned(ours, theirs)
    assert (mine - stored).abs().max() <= tolerance


def stable(stored: dict, prefix: str, shape: tuple[int, ...]) -> torch.Tensor:
    bits = np.unpackbits(stored[f"{prefix}stable"])[: shape[0] * shape[1]]
    return torch.from_numpy(bits.astype(bool)).view(shape)


def test_the_networks_input(run):
    if "input" in run.stored:
        close(run.batch.tensor[0], run.stored["input"], 1e-6)


def test_features(run):
    for level in "2345":
        close(run.maps[f"res{level}"][0], run.stored[f"c{level}"])
        close(run.maps[f"p{level}"][0], run.stored[f"p{level}"])


def test_coarse_logits(run):
    close(run.coarse[0], run.stored["coarse"])


def test_points_of_each_step(run):
    allowed = EXCHANGED
    for number, (step, only_one) in enumerate(zip(run.trace, run.only_one(), strict=True), 1):
        assert step.index.shape[1] == len(run.stored[f"step{number}_idx"])
        exchanged = int(only_one.sum()) // 2
        assert exchanged <= allowed
        allowed += SHIFT * exchanged


def test_what_the_point_head_sees_and_says(run):
    for number, step in enumerate(run.trace, 1):
        index = torch.from_numpy(run.stored[f"step{number}_sample_idx"]).long()
        order = {cell: place for place, cell in enumerate(step.index[0].tolist())}
        common = [i for i, cell in enumerate(index.tolist()) if cell in order]
        assert len(common) >= len(index) - EXCHANGED
        places = torch.tensor([order[int(index[i])] for i in common])
        points = step.points[:, places]
        theirs = torch.from_numpy(run.stored[f"step{number}_sample_pts"])[common]
        assert (points[0] - theirs).abs().max() < 1e-6
        said = step.logits[0].flatten(1)[:, index[common]]
        close(said, run.stored[f"step{number}_sample_logits"][:, common])
        if f"step{number}_sample_fine" in run.stored:
            close(point_sample(run.maps["p2"], points)[0], run.stored[f"step{number}_sample_fine"][:, common])
            close(point_sample(run.coarse, points)[0], run.stored[f"step{number}_sample_coarse"][:, common])


def test_logits(run):
    undisturbed = ~run.exchanged()
    mine, theirs = thinned(run.logits, run.stored["logits"])
    where, _ = thinned(undisturbed, run.stored["logits"][0])
    assert (mine - theirs)[:, where].abs().max() <= TOLERANCE
    assert undisturbed.float().mean() > 0.9  # a few exchanged points, each with its surroundings


def test_labels(run):
    labels = run.logits.argmax(0)
    theirs = torch.from_numpy(run.stored["labels"]).long()
    clear = stable(run.stored, "", tuple(theirs.shape)) & ~run.exchanged()
    assert torch.equal(labels[clear], theirs[clear])
    assert (labels == theirs).float().mean() > 0.999


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_the_test_pipeline_resizes_as_opencv_and_back(reference, name, monkeypatch):
    if f"{name}_pipeline" not in reference.golden:
        pytest.skip("no pipeline stored")
    golden, model, image = reference.golden[f"{name}_pipeline"], reference.model, reference.image(name)
    resized = resize_image(image, model.config.preprocessing)
    assert tuple(resized.shape) == tuple(golden["net_input"])
    bgr = resized.flip(0).contiguous().numpy()
    assert zlib.crc32(bgr) == golden["resized_crc32"]
    assert int(bgr.sum(dtype=np.int64)) == golden["resized_sum"]
    for fast in (True, False):
        monkeypatch.setattr(model.point_rend.head, "fast", fast)
        with watched(model) as views:
            labels = model.predict([image])[0].labels.long()
        check_labels(labels, reference.stored, f"{name}_pipeline_", in_size(views[0], image))


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_flips_and_scales(reference, name):
    if f"{name}_tta_probs" not in reference.stored:
        pytest.skip("no test-time augmentation stored")
    image = reference.image(name)
    with watched(reference.model) as views:
        probabilities = AugmentedSemantic(reference.model).grid(image).rows(0, image.shape[1])
    upright = [view.flip(-1) if number % 2 else view for number, view in enumerate(views)]
    undecided = torch.stack([in_size(view, image) for view in upright]).any(0)
    check_values(probabilities, reference.stored[f"{name}_tta_probs"], undecided)
    check_labels(probabilities.argmax(0), reference.stored, f"{name}_tta_", undecided)


def test_sliding_windows(reference):
    if "A_slide_logits" not in reference.stored:
        pytest.skip("no sliding windows stored")
    model, image = reference.model, reference.image("A")
    own_size = dataclasses.replace(model.config.preprocessing, short_edge=None, long_edge=None)
    with pytest.MonkeyPatch.context() as patch, watched(model) as views:
        patch.setattr(model, "config", dataclasses.replace(model.config, preprocessing=own_size))
        grid = SlidingSemantic(model, (128, 256), (96, 160)).grid(image)
    undecided = torch.zeros(image.shape[1:], dtype=torch.bool)
    for (top, left, _), view in zip(grid.views, views, strict=True):
        undecided[top : top + view.shape[0], left : left + view.shape[1]] |= view
    logits = grid.rows(0, image.shape[1])
    check_values(logits, reference.stored["A_slide_logits"], undecided)
    check_labels(logits.argmax(0), reference.stored, "A_slide_", undecided)


def in_size(cells: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(h, w) bool in the size of an image."""
    return F.adaptive_max_pool2d(cells[None].float(), image.shape[1:])[0] > 0


def check_values(ours: torch.Tensor, theirs: np.ndarray, undecided: torch.Tensor) -> None:
    """Equal to the tolerance: everywhere but near points that may have been exchanged, and there nearly everywhere."""
    mine, stored = thinned(ours, theirs)
    apart = ((mine - stored).abs() > TOLERANCE).any(0)
    assert not apart[~thinned(undecided, theirs[0])[0]].any()
    assert apart.float().mean() < 0.01


def check_labels(ours: torch.Tensor, stored: dict, prefix: str, undecided: torch.Tensor) -> None:
    theirs = torch.from_numpy(stored[f"{prefix}labels"]).long()
    clear = stable(stored, prefix, tuple(theirs.shape)) & ~undecided
    assert torch.equal(ours[clear], theirs[clear])
    assert (ours == theirs).float().mean() > 0.999


def training_batch(reference):
    stored = reference.stored
    if "loss_labels" not in stored:
        pytest.skip("no losses stored")
    image = reference.image("A")
    crops = [image[:, y : y + h, x : x + w] for y, x, h, w in stored["loss_crops_yxhw"].tolist()]
    labels = [SemanticTarget(torch.from_numpy(label)) for label in stored["loss_labels"]]
    return crops, labels


@pytest.fixture
def at_stored_points(reference, monkeypatch):
    """The loss takes the reference's points instead of random ones."""
    if "loss_points" not in reference.stored or "loss" not in reference.golden:
        pytest.skip("no losses stored")
    points = torch.from_numpy(reference.stored["loss_points"])
    monkeypatch.setattr(
        "pointrend.core.point_rend.sample_training_points",
        lambda coarse, *_, **__: points.to(coarse.dtype),
    )


def test_losses_with_running_statistics(reference, at_stored_points):
    golden = reference.golden["loss"]["eval_bn"]
    with torch.no_grad():
        losses = reference.model.loss(*training_batch(reference))
    assert float(losses["coarse"]) == pytest.approx(golden["decode_0.loss_ce"], rel=1e-5)
    assert float(losses["points"]) == pytest.approx(golden["decode_1.pointloss_ce"], rel=1e-5)


def test_losses_and_gradients_with_batch_statistics(reference, at_stored_points, monkeypatch):
    golden = reference.golden["loss"]
    model, batch = reference.model, training_batch(reference)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    features = model.features
    try:
        losses, gradients = backward(model, batch)
        stem = model.backbone.stem[1]
        expected = golden["train_bn"]
        assert losses["coarse"] == pytest.approx(expected["decode_0.loss_ce"], rel=1e-5)
        assert losses["points"] == pytest.approx(expected["decode_1.pointloss_ce"], rel=1e-5)
        for name in ("running_mean", "running_var"):
            theirs = torch.tensor(golden[f"stem1_{name}_after"])
            torch.testing.assert_close(getattr(stem, name), theirs, atol=1e-5, rtol=1e-4)
        if "grad_norm" in golden:
            monkeypatch.setattr(model, "features", lambda tensor: features(tensor.double()))
            _, exact = backward(model.double(), batch)
            check_gradients(gradients, exact, golden["grad_norm"], reference.stored)
    finally:
        monkeypatch.undo()
        model.float().eval().zero_grad(set_to_none=True)
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])


def backward(model, batch):
    """The losses in training mode, and the gradient of each parameter in float64."""
    model.train().zero_grad(set_to_none=True)
    losses = model.loss(*batch)
    sum(losses.values()).backward()
    return (
        {name: loss.item() for name, loss in losses.items()},
        {name: parameter.grad.double() for name, parameter in model.named_parameters()},
    )


STORED_GRADIENTS = {
    "grad_fc_seg_weight": ("decode_head.1.fc_seg.weight", lambda gradient: gradient[:, :, 0]),
    "grad_lateral0_weight_s": (
        "neck.lateral_convs.0.conv.weight",
        lambda gradient: gradient[::16, ::16, 0, 0],
    ),
    "grad_stem0_weight": ("backbone.stem.0.weight", lambda gradient: gradient),
}


def check_gradients(gradients, exact, norms, stored):
    """The original's float32 gradients are as far from the exact ones as float32 takes ours, and no farther.

    Rounding moves a ReLU or a max-pool from one cell to the next, and batch statistics spread what follows: in the
    backbone 0.4 to 1.7 %, by another pattern on each processor, and 1e-5 in the point head.
    """
    assert {translate(name, SEMANTIC) for name in norms} == set(exact)
    rounding = {name: distance(gradients[name], exact[name]) for name in exact}
    assert max(rounding.values()) < 0.05
    allowed = {name: 1e-4 + 3 * error for name, error in rounding.items()}
    for name, norm in norms.items():
        ours = translate(name, SEMANTIC)
        assert float(exact[ours].norm()) == pytest.approx(norm, rel=allowed[ours], abs=1e-6), name
    for key, (name, part) in STORED_GRADIENTS.items():
        if key in stored:
            ours = translate(name, SEMANTIC)
            mine, theirs = thinned(part(exact[ours]), stored[key])
            assert distance(theirs.double(), mine) < allowed[ours], name


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of two vectors, as a share of the second: direction and length."""
    return float((one - other).norm() / other.norm())


def test_training_points_are_the_most_uncertain_candidates(reference, monkeypatch):
    if "sel_candidates" not in reference.stored:
        pytest.skip("no selection stored")
    candidates = torch.from_numpy(reference.stored["sel_candidates"])
    model = reference.model
    crops, _ = training_batch(reference)
    with torch.no_grad():
        maps = model.features(batch_images(crops, model.config.preprocessing).tensor)
        coarse = model.coarse(maps)
    draws = iter([candidates, torch.zeros(len(candidates), 512, 2)])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(draws))
    points = sample_training_points(coarse, PointSampling(2048), margin_uncertainty)
    for region, chosen in enumerate(reference.stored["sel_chosen"]):
        theirs = {tuple(p) for p in candidates[region, torch.from_numpy(chosen).long()].tolist()}
        ours = {tuple(p) for p in points[region, :1536].tolist()}
        assert len(ours - theirs) <= 1
