"""Writes sets of outputs in the originals' layout, computed by tiny models of ours: to try the tests, not the models.

Architectures, seeds and settings differ from those of the sets at hand, as those of further sets will.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointrend.checkpoints.detectron2 import from_detectron2, to_detectron2
from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import reverse, translate
from pointrend.checkpoints.openmmlab import SEMANTIC, from_mmsegmentation
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing, batch_images, resize_image
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.models.tta import AugmentedSemantic, SlidingSemantic
from tests.reference.discovery import load_module

BGR = Preprocessing(std=(1.0, 1.0, 1.0), channel_order="BGR", short_edge=800, long_edge=1333)
HEADS = "MODEL.ROI_HEADS."
POINTS = "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS"
INSTANCES: dict[str, tuple[int, str, dict[str, Any], MaskConfig]] = {
    # name -> (classes, head, overrides, the mask settings that Detectron2 makes of them)
    "many_classes": (
        1203,
        "pointrend",
        {POINTS: 196, "MODEL.POINT_HEAD.NUM_CLASSES": 1203, HEADS + "NUM_CLASSES": 1203},
        MaskConfig(width=8, coarse_width=8, num_points=196),
    ),
    "fewer_steps": (
        8,
        "pointrend",
        {"MODEL.POINT_HEAD.SUBDIVISION_STEPS": 4},
        MaskConfig(width=8, coarse_width=8, mask_size=112),
    ),
    "implicit": (
        5,
        "implicit",
        {POINTS: 196, "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 2},
        MaskConfig(width=8, coarse_width=8, num_points=196, mask_size=56),
    ),
}
COMMON = {
    HEADS + "SCORE_THRESH_TEST": 0.0,
    HEADS + "NMS_THRESH_TEST": 0.4,
    "TEST.DETECTIONS_PER_IMAGE": 6,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 60,
}


def write_detectron2(folder: Path, make: Path, seed: int) -> None:
    """goldens/ and shapes/ of three instance models and a semantic one."""
    maker, rng = load_module(make), np.random.default_rng(seed)
    goldens = folder / "goldens"
    goldens.mkdir(parents=True)
    images = {"A": rng.integers(0, 256, (70, 100, 3), np.uint8), "T": maker.image(40, 64, seed)}
    np.savez(goldens / "images.npz", **images)
    configs: dict[str, Any] = {}
    for name, (classes, head, overrides, masks) in INSTANCES.items():
        network: Any = InstanceConfig(
            tuple(f"class {i}" for i in range(classes)), BackboneConfig("resnet18"), BGR, fpn_channels=8,
            mask_head=head,
            boxes=BoxHeadConfig(width=8), masks=dataclasses.replace(masks, num_points=784, mask_size=224),
        )  # fmt: skip
        model = stand_in(InstanceSegmenter(network), folder, name, maker, seed)
        model.box_head.config = dataclasses.replace(
            model.box_head.config, score_threshold=0.0, nms_threshold=0.4, max_detections=6
        )
        model.rpn.config = dataclasses.replace(model.rpn.config, after_nms=60)
        model.mask_head.config = dataclasses.replace(
            model.mask_head.config, num_points=masks.num_points, mask_size=masks.mask_size
        )
        cases = {"A": {"image": "A", "INPUT.MIN_SIZE_TEST": 84, "INPUT.MAX_SIZE_TEST": 110}}
        arrays = instance_arrays(model, images["A"], (84, 110))
        np.savez(goldens / f"{name}.npz", **{f"A/{key}": value for key, value in arrays.items()})
        configs[name] = {
            "overrides": COMMON | overrides,
            "cases": cases,
            "pixel_std_for_make_checkpoint": 1.0,
        }
    rend = SemanticPointRendConfig(width=8, coarse_each_layer=False, subdivision_steps=2)
    semantic = SemanticConfig(
        ("a", "b", "c"), backbone=BackboneConfig("resnet18"), preprocessing=BGR, fpn_channels=8,
        decoder_channels=32, point_rend=rend,
    )  # fmt: skip
    model = stand_in(SemanticSegmenter(semantic), folder, "semantic_points", maker, seed, count=300)
    arrays = semantic_arrays(model, images["T"], (56, 2048))
    np.savez(goldens / "semantic_points.npz", **{f"T/{key}": value for key, value in arrays.items()})
    cases = {"T": {"image": "T", "INPUT.MIN_SIZE_TEST": 56, "INPUT.MAX_SIZE_TEST": 2048}}
    configs["semantic_points"] = {"overrides": {POINTS: 300}, "cases": cases, "seed": seed}
    (goldens / "meta.json").write_text(json.dumps({"seed": seed, "configs": configs}))


def stand_in(model: Any, folder: Path, name: str, maker: Any, seed: int, count: int | None = None) -> Any:
    """The model with the maker's weights; its shapes are written."""
    path = folder / "x.pkl"
    to_detectron2(model, path)
    shapes = {key: list(tensor.shape) for key, tensor in read_foreign(path).tensors.items()}
    (folder / "shapes").mkdir(exist_ok=True)
    (folder / "shapes" / f"{name}.json").write_text(json.dumps(shapes))
    tensors = {key: torch.from_numpy(array) for key, array in maker.checkpoint(shapes, seed)["model"].items()}
    torch.save({"model": tensors}, path)
    loaded = from_detectron2(path)
    if count is not None:
        rend = dataclasses.replace(loaded.config.point_rend, num_points=count)
        loaded = from_detectron2(path, config=dataclasses.replace(loaded.config, point_rend=rend))
    path.unlink()
    return loaded


def at_size(model: Any, pixels: np.ndarray, edges: tuple[int | None, int | None]) -> torch.Tensor:
    """The image, (3, H, W); the model will see it at this size."""
    preprocessing = dataclasses.replace(model.config.preprocessing, short_edge=edges[0], long_edge=edges[1])
    model.config = dataclasses.replace(model.config, preprocessing=preprocessing)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def instance_arrays(model: Any, pixels: np.ndarray, edges: tuple[int, int]) -> dict[str, np.ndarray]:
    """What Detectron2's sets store of an image."""
    image = at_size(model, pixels, edges)
    trace = model.trace([image])
    found, proposals, (result,) = trace.detections[0], trace.proposals[0], trace.results
    masks = torch.stack([result.masks.full(i) for i in range(len(result))])
    arrays: dict[str, Any] = {
        "resized_bgr": resize_image(image, model.config.preprocessing).flip(0).permute(1, 2, 0),
        "input_size": torch.tensor(trace.batch.sizes[0]),
        "padded_size": torch.tensor(trace.batch.padded_size),
        "p2_sub": trace.features["p2"][:, ::7, ::8, ::8],
        "num_proposals": torch.tensor(len(proposals.boxes)),
        "proposal_boxes_top100": proposals.boxes[:100],
        "raw_pred_boxes": found.boxes,
        "raw_scores": found.scores,
        "raw_pred_classes": found.labels,
        "boxes": result.boxes,
        "scores": result.scores,
        "classes": result.labels,
        "masks_shape": torch.tensor(masks.shape),
        "mask_prob": trace.logits[:4].sigmoid().half(),
        "mask_fg_fraction": (trace.logits.sigmoid() >= 0.5).float().mean((1, 2)),
        "step0_logits": trace.masks.start[:4, 0],
    }
    for number, step in enumerate(trace.masks.steps, 1):
        arrays[f"step{number}_point_indices_sorted"] = step.index[:4].sort().values
    return {key: value.numpy() for key, value in arrays.items()} | {
        "masks_packed": np.packbits(masks.flatten(1).numpy(), axis=1)
    }


def semantic_arrays(model: Any, pixels: np.ndarray, edges: tuple[int, int]) -> dict[str, np.ndarray]:
    """What Detectron2's sets store of an image."""
    image = at_size(model, pixels, edges)
    batch = batch_images([resize_image(image, model.config.preprocessing)], model.config.preprocessing)
    trace: list = []
    padded = model.logits(batch, trace=trace)
    rows, columns = batch.sizes[0]
    final = torch.nn.functional.interpolate(
        padded[:, :, :rows, :columns], image.shape[1:], mode="bilinear", align_corners=False
    )[0]
    maps = model.features(batch.tensor)
    arrays = {
        "input_size": np.array(batch.sizes[0]),
        "padded_size": np.array(batch.padded_size),
        **{f"p{n}_sub": maps[f"p{n}"][:, :: 7 if n == 2 else 31, ::s, ::s].detach().numpy()
           for n, s in ((2, 8), (3, 4), (4, 2), (5, 1))},
        "coarse_logits_sub": model.coarse(dict(maps))[0, :, ::2, ::2].detach().numpy(),
        "logits_padded_sub": padded[0, :, 3::8, 3::8].numpy(),
        "logits_sub": final[:, 1::6, 1::6].numpy(),
        "argmax": final.argmax(0).numpy().astype(np.uint8),
    }  # fmt: skip
    for number, step in enumerate(trace, 1):
        flags = np.zeros(step.size[0] * step.size[1], bool)
        flags[step.index[0].numpy()] = True
        arrays |= {
            f"step{number}_grid": np.array(step.size),
            f"step{number}_points_mask_packed": np.packbits(flags),
        }
    return arrays


def write_mmsegmentation(folder: Path, make: Path, seed: int) -> None:
    """A flat set of one model with ADE20K's classes, its sliding windows and its flips and scales."""
    maker, rng = load_module(make), np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rend = SemanticPointRendConfig(width=8, num_points=8196, subdivision_steps=2)
    config = SemanticConfig(
        tuple(f"class {i}" for i in range(150)), backbone=BackboneConfig("resnet18", "batch", deep_stem=True),
        preprocessing=Preprocessing(short_edge=512, long_edge=2048, resize="cv2", divisor=1), fpn_channels=16,
        decoder_channels=16, decoder_norm="BN", loss_normalize="all", point_rend=rend,
    )  # fmt: skip
    names = reverse(SEMANTIC)
    state = SemanticSegmenter(config).state_dict()
    shapes = {translate(name, names): list(tensor.shape) for name, tensor in state.items()}
    (folder / "shapes_tiny_ade20k.json").write_text(json.dumps(shapes))
    maker.save_checkpoint(folder / "x.pth", shapes, seed)
    model: Any = from_mmsegmentation(folder / "x.pth")
    (folder / "x.pth").unlink()
    images = {"A": rng.integers(0, 256, (140, 256, 3), np.uint8), "C": maker_image(rng, 61, 87)}
    np.savez(folder / "inputs.npz", **images)
    arrays: dict[str, np.ndarray] = {}
    for name, pixels in images.items():
        arrays |= {f"{name}_{key}": value for key, value in mmseg_arrays(model, pixels).items()}
    image = at_size(model, images["A"][..., ::-1].copy(), (None, None))
    sliding = SlidingSemantic(model, (128, 256), (96, 160)).grid(image).rows(0, image.shape[1]).numpy()
    arrays |= {"A_slide_logits": sliding[:, ::8, ::8], "A_slide_labels": labels(sliding)}
    image = at_size(model, images["C"][..., ::-1].copy(), (None, None))
    scaled = AugmentedSemantic(model).grid(image).rows(0, image.shape[1]).numpy()
    arrays |= {"C_tta_probs": scaled[:, ::8, ::8], "C_tta_labels": labels(scaled)}
    arrays |= {"A_slide_stable": clear(sliding), "C_tta_stable": clear(scaled, 0.002)}
    np.savez(folder / "tiny_ade20k.npz", **arrays)
    content = {"seed": seed, "weights_crc32": {}, **{name: {} for name in images}}
    (folder / "goldens.json").write_text(json.dumps({"tiny_ade20k": content}))


def maker_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth, in a size that is no multiple of 4."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / rng.uniform(3, 20) + columns / rng.uniform(3, 20)) for _ in range(3)]
    return (127 + 120 * np.stack(waves, -1)).astype(np.uint8)


def mmseg_arrays(model: Any, bgr: np.ndarray) -> dict[str, np.ndarray]:
    """What MMSegmentation's sets store of an image at its own size."""
    image = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1).contiguous()
    batch = batch_images([image], model.config.preprocessing)
    trace: list = []
    with torch.no_grad():
        maps = model.features(batch.tensor)
        logits = model.logits(batch, trace=trace)[0].numpy()
        arrays = {"coarse": model.coarse(dict(maps))[0, :, ::2, ::2].numpy()}
    arrays |= {f"c{n}": maps[f"res{n}"][0, :: 2**n, ::2, ::2].numpy() for n in range(2, 6)}
    arrays |= {f"p{n}": maps[f"p{n}"][0, ::16, ::2, ::2].numpy() for n in range(2, 6)}
    arrays |= {"logits": logits[:, ::16, ::16], "labels": labels(logits), "stable": clear(logits)}
    for number, step in enumerate(trace, 1):
        chosen = step.index[0].sort().values[::256]
        order = {cell: place for place, cell in enumerate(step.index[0].tolist())}
        places = [order[cell] for cell in chosen.tolist()]
        arrays |= {
            f"step{number}_idx": step.index[0].sort().values.int().numpy(),
            f"step{number}_sample_idx": chosen.int().numpy(),
            f"step{number}_sample_pts": step.points[0, places].numpy(),
            f"step{number}_sample_logits": step.logits[0].flatten(1)[:, chosen].numpy(),
        }
    return arrays


def labels(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(0).astype(np.uint8)


def clear(logits: np.ndarray, margin: float = 0.01) -> np.ndarray:
    best = np.sort(logits, axis=0)
    return np.packbits(best[-1] - best[-2] > margin)
