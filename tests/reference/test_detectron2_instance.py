"""Instance models give Detectron2's stored numbers, on every configuration, case and batch found in the reference.

Weights are made from their names (make_checkpoint.py), written as a zoo checkpoint, and loaded as any other. Tolerances
are a few times what the original itself moves by with another convolution library.
"""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pointrend.checkpoints.detectron2 import from_detectron2
from pointrend.models.boxes import Regions
from pointrend.models.inputs import batch_images, resize_image
from pointrend.models.instance import InstanceSegmenter, InstanceTrace
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.paste_masks import paste_window
from pointrend.zoo import ZOO
from tests.reference.discovery import ROOT, Golden, detectron2

IGNORED = {
    "image",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "OUTPUT_DIR",
}
BOX_SETTINGS = {
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "score_threshold",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "nms_threshold",
    "TEST.DETECTIONS_PER_IMAGE": "max_detections",
}
PROPOSAL_SETTINGS = {
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "before_nms_test",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "after_nms",
    "MODEL.RPN.NMS_THRESH": "nms_threshold",
}
POINTS, STEPS = "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS", "MODEL.POINT_HEAD.SUBDIVISION_STEPS"
# Told by the shapes as well; compared with what was made of them.
CLASSES = {"MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.POINT_HEAD.NUM_CLASSES"}


CONFIGURATIONS = {
    golden.id: golden
    for golden in detectron2()
    if any(key.startswith("roi_heads.") for key in golden.shapes())
}
if not CONFIGURATIONS:
    pytest.skip(f"no reference outputs in {ROOT}: set POINTREND_REFERENCE", allow_module_level=True)


class Reference:
    """One configuration: its model with the stand-in weights, its images and stored outputs."""

    def __init__(self, golden: Golden, folder: Path) -> None:
        self.golden, self.config = golden, golden.content
        self.stored = np.load(golden.arrays())
        path = folder / "weights.pkl"
        golden.write_pickle(path)
        # The test size leaves no trace in a file; the published model of this name tells it.
        known = ZOO.get(Path(self.config.get("file", golden.name)).stem)
        self.model: InstanceSegmenter = from_detectron2(path, config=known and known.config()).eval()
        path.unlink()
        self.cases = list(self.config["cases"])
        self.traces: dict[str, InstanceTrace] = {}
        self.settings = golden.settings
        self.own = {part: part.config for part in (self.model.box_head, self.model.rpn, self.model.mask_head)}

    def apply(self, settings: dict) -> None:
        """Set the model to what a case overrides."""
        known = IGNORED | CLASSES | {*BOX_SETTINGS, *PROPOSAL_SETTINGS, POINTS, STEPS}
        assert set(settings) <= known, f"settings this test does not know: {set(settings) - known}"
        assert {settings[key] for key in CLASSES & set(settings)} <= {self.model.config.num_classes}
        for part, names in ((self.model.box_head, BOX_SETTINGS), (self.model.rpn, PROPOSAL_SETTINGS)):
            changes = {names[key]: value for key, value in settings.items() if key in names}
            part.config = dataclasses.replace(self.own[part], **changes)
        self.model.mask_head.config = mask_config(
            self.own[self.model.mask_head], settings, self.model.config.mask_head
        )

    def image(self, case: str) -> torch.Tensor:
        name = self.config["cases"][case]["image"]
        pixels = np.load(self.golden.file("images.npz"))[name]
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def preprocessing(self, case: str):
        settings = self.settings(case)
        return dataclasses.replace(
            self.model.config.preprocessing,
            short_edge=settings.get("INPUT.MIN_SIZE_TEST", self.model.config.preprocessing.short_edge),
            long_edge=settings.get("INPUT.MAX_SIZE_TEST", self.model.config.preprocessing.long_edge),
        )

    @contextmanager
    def textbook_head(self) -> Iterator[None]:
        """Points are predicted by `PointHead.forward` meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.model.mask_head.point_head, "fast", False, raising=False)
            yield

    def case(self, case: str) -> tuple[InstanceTrace, Outputs]:
        """What we predict, with every intermediate value, and what is stored."""
        self.apply(self.settings(case))
        if case not in self.traces:
            self.model.config = dataclasses.replace(self.model.config, preprocessing=self.preprocessing(case))
            with self.textbook_head():
                self.traces[case] = self.model.trace([self.image(case)])
        return self.traces[case], Outputs(self.stored, case)


def mask_config(own: MaskConfig, settings: dict, head: str) -> MaskConfig:
    """Points and steps as Detectron2 reads them: PointRend's steps are counted from the coarse 7x7, Implicit
    PointRend's from the grid that the points fill.
    """
    points = settings.get(POINTS, own.num_points)
    side = own.mask_size
    if head == "implicit":
        side = math.isqrt(points) * 2 ** settings.get(STEPS, 3)
    elif STEPS in settings:
        side = own.coarse_size * 2 ** settings[STEPS]
    return dataclasses.replace(own, num_points=points, mask_size=side)


class Outputs:
    """Stored arrays of one case, compared where they are there."""

    def __init__(self, stored, case: str) -> None:
        self.stored, self.case = stored, case

    def __contains__(self, name: str) -> bool:
        return f"{self.case}/{name}" in self.stored

    def __getitem__(self, name: str) -> torch.Tensor:
        array = self.stored[f"{self.case}/{name}"]
        return torch.from_numpy(
            np.asarray(array).astype(np.float32) if array.dtype == np.float16 else np.asarray(array)
        )

    def close(self, name: str, value: torch.Tensor, tolerance: float) -> None:
        if name in self:
            expected = self[name]
            torch.testing.assert_close(
                value,
                expected,
                rtol=0,
                atol=tolerance,
                check_dtype=False,
                msg=lambda m: f"{self.case}/{name}: {m}",
            )


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reference]:
    """One model at a time: some have hundreds of millions of weights."""
    yield Reference(CONFIGURATIONS[request.param], tmp_path_factory.mktemp("weights"))
    gc.collect()


def test_the_network_sees_the_same_pixels(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        assert list(trace.batch.sizes[0]) == stored["input_size"].tolist()
        assert list(trace.batch.padded_size) == stored["padded_size"].tolist()
        if "resized_bgr" in stored:
            resized = resize_image(reference.image(case), reference.preprocessing(case))
            assert torch.equal(resized.flip(0).permute(1, 2, 0), stored["resized_bgr"])


def test_features_are_the_same(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        steps = {"p2": (7, 8), "p3": (31, 4), "p4": (31, 2), "p5": (31, 1), "p6": (31, 1)}
        for level, (channels, cells) in steps.items():
            stored.close(f"{level}_sub", trace.features[level][:, ::channels, ::cells, ::cells], 1e-3)


def test_proposals_are_the_same(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        found = trace.proposals[0]
        assert len(found.boxes) == int(stored["num_proposals"])
        stored.close("proposal_logits_top100", found.logits[:100], 1e-3)
        # Neighbours of nearly equal logits may change places with another convolution library.
        distance = torch.cdist(stored["proposal_boxes_top100"], found.boxes[:110], p=torch.inf).amin(1)
        assert distance.max() <= 0.01


def test_the_box_branch_says_the_same_of_the_same_proposals(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        head = reference.model.box_head
        maps = [trace.features[level] for level in ("p2", "p3", "p4", "p5")]
        with torch.no_grad():
            pooled = head.pool(maps, [stored["proposal_boxes_top100"][:30]])
            logits, deltas = head(pooled)
        stored.close("box_pooled_sub", pooled[:8, ::32], 1e-3)
        stored.close("cls_logits_first30", logits, 1e-3)
        stored.close("box_deltas_first10", deltas[:10], 1e-3)


def test_detections_are_the_same_in_the_same_order(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        assert torch.equal(trace.detections[0].labels, stored["raw_pred_classes"].long())
        stored.close("raw_pred_boxes", trace.detections[0].boxes, 0.01)
        stored.close("raw_scores", trace.detections[0].scores, 1e-5)
        check_detections(trace.results[0], stored)


def test_masks_of_the_detections_are_the_same(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        check_mask_branch(trace.logits, trace.masks, trace.regions.labels, stored)
        check_pasted(trace.results[0], trace.logits, stored)


def test_the_fast_path_gives_the_same_masks(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        found = trace.detections
        (logits,) = reference.model.masks_for_boxes(trace.features, [found[0].boxes], [found[0].labels])
        check_probabilities(logits, stored)
        (result,) = reference.model.finish([reference.image(case)], trace.batch, found, [logits])
        check_pasted(result, logits, stored)


def test_masks_of_given_boxes_are_the_same(reference):
    for case in reference.cases:
        trace, stored = reference.case(case)
        if "given_boxes" not in stored:
            continue
        regions = Regions.from_lists([stored["given_boxes"]], [stored["given_classes"]])
        with reference.textbook_head():
            logits, masks = reference.model.mask_head.trace(trace.features, regions)
        check_mask_branch(logits, masks, regions.labels, stored, "given_")
        (alone,) = reference.model.masks_for_boxes(trace.features, [regions.boxes], [regions.labels])
        check_probabilities(alone, stored, "given_")


def test_a_batch_gives_the_same_as_in_the_same_batch(reference):
    model = reference.model
    cases = [
        case for number, case in enumerate(reference.cases) if f"batch{number}/boxes" in reference.stored
    ]
    if not cases:
        pytest.skip("no batch was stored for this configuration")
    images = [reference.image(case) for case in cases]
    resized = [resize_image(p, reference.preprocessing(case)) for p, case in zip(images, cases, strict=True)]
    with torch.no_grad():
        batch = batch_images(resized, model.config.preprocessing)
        features = model.features(batch)
        found = model.detect(features, model.propose(features, batch), batch)
        logits = model.masks_for_boxes(features, [d.boxes for d in found], [d.labels for d in found])
        results = model.finish(images, batch, found, logits)
    for number, result in enumerate(results):
        stored = Outputs(reference.stored, f"batch{number}")
        check_detections(result, stored)
        check_pasted(result, logits[number], stored)


def check_detections(result, stored: Outputs) -> None:
    assert torch.equal(result.labels, stored["classes"].long())
    stored.close("boxes", result.boxes, 0.01)
    stored.close("scores", result.scores, 1e-5)


def check_mask_branch(logits, masks, labels, stored: Outputs, prefix: str = "") -> None:
    rows = torch.arange(len(labels))
    if f"{prefix}coarse_logits_pred_class" in stored:
        stored.close(f"{prefix}coarse_logits_pred_class", masks.coarse[rows, labels], 1e-3)
        stored.close(f"{prefix}coarse_logits_all_first2", masks.coarse[:2], 1e-3)
    count = len(stored[f"{prefix}step0_logits"])
    stored.close(f"{prefix}step0_logits", masks.start[:count, 0], 1e-3)
    for number, step in enumerate(masks.steps, start=1):
        expected = stored[f"{prefix}step{number}_point_indices_sorted"].long()
        for own, theirs in zip(step.index, expected, strict=False):
            assert len(theirs) - int(torch.isin(own, theirs).sum()) <= 1, f"step {number}"
        least = -step.upsampled.flatten(1).abs().gather(1, step.index).amax(1)
        stored.close(f"{prefix}step{number}_uncertainty_threshold", least[: len(expected)], 1e-3)
    check_probabilities(logits, stored, prefix)


def check_probabilities(logits, stored: Outputs, prefix: str = "") -> None:
    probability = logits.sigmoid()
    stored.close(f"{prefix}mask_fg_fraction", (probability >= 0.5).float().mean((1, 2)), 1e-3)
    expected = stored[f"{prefix}mask_prob"]
    # Stored as float16, so compared as float16.
    difference = (probability[: len(expected)].half().float() - expected).abs()
    apart = difference > 1e-3
    assert apart.float().mean() <= 1e-3
    assert difference[~apart].mean() <= 1e-5


def check_pasted(result, logits, stored: Outputs) -> None:
    """IoU 0.9995, all pixels counted: below 2000 pixels that is every one."""
    count, height, width = stored["masks_shape"].tolist()
    bits = np.unpackbits(stored["masks_packed"].numpy(), axis=1)[:, : height * width]
    expected = torch.from_numpy(bits).view(count, height, width).bool()
    assert (len(result), *result.masks.image_size) == tuple(expected.shape)
    for number, theirs in enumerate(expected):
        own = result.masks.full(number)
        soft, (x, y) = paste_window(logits[number].sigmoid(), result.boxes[number], (height, width))
        rows, columns = slice(y, y + soft.shape[0]), slice(x, x + soft.shape[1])
        union, different = int((own | theirs).sum()), own != theirs
        farthest = (soft - 0.5).abs()[different[rows, columns]]
        assert int(different.sum()) <= 0.0005 * union, (
            f"mask {number}: {int(different.sum())} of {union} pixels, {farthest.max()} from the threshold at most"
        )
