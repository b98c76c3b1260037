"""Semantic models give Detectron2's stored numbers, on every configuration and case found in the reference.

Weights are made from their names (make_checkpoint.py), written as a zoo checkpoint and loaded as any other.
The original, run with another convolution library, moved by 2e-5 in its logits and kept every label; a point
at the threshold of a step may be exchanged for the next in rank, and then the cells around it are left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointrend.checkpoints.detectron2 import from_detectron2
from pointrend.models.inputs import batch_images, resize_image
from tests.reference.discovery import ROOT, detectron2
from tests.reference.rounding import SHIFT, around

# What the stored cases override and how it is followed here; anything else has to be looked at first.
KNOWN = {"image", "OUTPUT_DIR", "MODEL.DEVICE", "MODEL.WEIGHTS", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"}
POINTS, STEPS = "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS", "MODEL.POINT_HEAD.SUBDIVISION_STEPS"
# Told by the shapes as well; compared with what was made of them.
CLASSES = {"MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.POINT_HEAD.NUM_CLASSES"}
LOGITS = 1e-3
FEATURES = {"p2": (7, 8), "p3": (31, 4), "p4": (31, 2), "p5": (31, 1)}


CONFIGURATIONS = {
    golden.id: golden
    for golden in detectron2()
    if any(key.startswith("sem_seg_head.") for key in golden.shapes())
}
CASES = [(name, case) for name, golden in CONFIGURATIONS.items() for case in golden.content["cases"]]
if not CASES:
    pytest.skip(f"no reference outputs in {ROOT}: set POINTREND_REFERENCE", allow_module_level=True)


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def model(request, tmp_path_factory):
    """The configuration's model; its name is kept beside the configuration."""
    return request.param, load(CONFIGURATIONS[request.param], tmp_path_factory.mktemp("weights"))


def load(golden, folder):
    path = folder / "x.pkl"
    golden.write_pickle(path)
    loaded = from_detectron2(path)
    overrides = golden.content.get("overrides", {})
    if {POINTS, STEPS} & set(overrides):
        rend = loaded.config.point_rend
        rend = dataclasses.replace(
            rend,
            num_points=overrides.get(POINTS, rend.num_points),
            subdivision_steps=overrides.get(STEPS, rend.subdivision_steps),
        )
        loaded = from_detectron2(path, config=dataclasses.replace(loaded.config, point_rend=rend))
    path.unlink()
    return loaded


@pytest.fixture(scope="module", params=sorted({case for _, case in CASES}))
def run(request, model):
    """Everything that the model computes for a case, and what is stored of it."""
    name, network = model
    golden, case = CONFIGURATIONS[name], request.param
    if case not in golden.content["cases"]:
        pytest.skip(f"{name} has no case {case}")
    return compute(network, golden, case)


def compute(network, golden, case) -> Run:
    settings = golden.settings(case)
    unknown = set(settings) - KNOWN - CLASSES - {POINTS, STEPS}
    assert not unknown, f"settings this test does not know: {unknown}"
    assert {settings[key] for key in CLASSES & set(settings)} <= {network.config.num_classes}
    preprocessing = dataclasses.replace(
        network.config.preprocessing,
        short_edge=settings.get("INPUT.MIN_SIZE_TEST", network.config.preprocessing.short_edge),
        long_edge=settings.get("INPUT.MAX_SIZE_TEST", network.config.preprocessing.long_edge),
    )
    network.config = dataclasses.replace(network.config, preprocessing=preprocessing)
    pixels = np.load(golden.file("images.npz"))[settings["image"]]
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    with np.load(golden.arrays()) as file:
        stored = {key.split("/")[1]: file[key] for key in file.files if key.startswith(f"{case}/")}
    with pytest.MonkeyPatch.context() as patch:
        return Run(network, image, stored, patch)


class Run:
    def __init__(self, model, image, stored, patch) -> None:
        self.stored, self.image = stored, image
        self.resized = resize_image(image, model.config.preprocessing)
        self.batch = batch_images([self.resized], model.config.preprocessing)
        with torch.no_grad():
            self.maps = model.features(self.batch.tensor)
            patch.setattr(model, "features", lambda _: dict(self.maps))  # three uses, computed once
            self.coarse = model.coarse(dict(self.maps))
            self.labels = model.predict([image])[0].labels
            patch.setattr(model.point_rend.head, "fast", False)
            self.trace: list = []
            self.padded = model.logits(self.batch, trace=self.trace)
            rows, columns = self.batch.sizes[0]
            cropped = self.padded[:, :, :rows, :columns]
            self.final = F.interpolate(cropped, image.shape[1:], mode="bilinear", align_corners=False)[0]
            self.textbook_labels = model.predict([image], trace=[])[0].labels

    def exchanged(self) -> torch.Tensor:
        """(H, W) bool on the padded input: near a point that only one of the two refined."""
        total = torch.zeros(self.batch.padded_size, dtype=torch.bool)
        for ours, theirs in self.points():
            total |= around(ours ^ theirs, self.batch.padded_size)
        return total

    def points(self):
        """For every step the refined cells, ours and theirs, as (h, w) bool."""
        for number, step in enumerate(self.trace, 1):
            size = tuple(self.stored[f"step{number}_grid"].tolist())
            assert step.size == size
            ours = torch.zeros(size[0] * size[1], dtype=torch.bool)
            ours[step.index[0]] = True
            packed = self.stored[f"step{number}_points_mask_packed"]
            theirs = torch.from_numpy(np.unpackbits(packed)[: ours.numel()].astype(bool))
            yield ours.view(size), theirs.view(size)


def close(
    ours: torch.Tensor, theirs: np.ndarray, tolerance: float, where: torch.Tensor | None = None
) -> None:
    difference = (ours - torch.from_numpy(theirs)).abs()
    if where is not None:
        difference = difference[..., where]
    assert difference.max() <= tolerance


def test_the_networks_input(run):
    assert run.batch.sizes[0] == tuple(run.stored["input_size"])
    assert run.batch.padded_size == tuple(run.stored["padded_size"])
    if "resized_bgr" in run.stored:
        bgr = run.resized.flip(0).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(bgr, run.stored["resized_bgr"])


def test_features(run):
    for name, (channels, cells) in FEATURES.items():
        close(run.maps[name][:, ::channels, ::cells, ::cells], run.stored[f"{name}_sub"], 1e-3)


def test_coarse_logits(run):
    close(run.coarse[0, :, ::2, ::2], run.stored["coarse_logits_sub"], LOGITS)


def test_points_of_each_step(run):
    shifted = 0
    for ours, theirs in run.points():
        assert ours.sum() == theirs.sum()
        exchanged = int((ours & ~theirs).sum())
        assert exchanged <= max(1, int(theirs.sum()) // 784) + shifted
        shifted += SHIFT * exchanged


def test_logits(run):
    undisturbed = ~run.exchanged()
    close(run.padded[0, :, 3::8, 3::8], run.stored["logits_padded_sub"], LOGITS, undisturbed[3::8, 3::8])
    if not (~undisturbed).any():
        close(run.final[:, 1::6, 1::6], run.stored["logits_sub"], LOGITS)


def test_labels(run):
    check_labels(run, run.labels)
    check_labels(run, run.textbook_labels)


def check_labels(run, labels) -> None:
    best = run.final.topk(2, dim=0).values
    clear = best[0] - best[1] > LOGITS
    rows, columns = run.batch.sizes[0]
    exchanged = run.exchanged()[None, None, :rows, :columns].float()
    clear &= F.interpolate(exchanged, run.labels.shape, mode="bilinear")[0, 0] == 0
    theirs = torch.from_numpy(run.stored["argmax"])
    assert torch.equal(labels[clear], theirs[clear])
    assert (labels == theirs).float().mean() > 0.9999
