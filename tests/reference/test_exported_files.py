"""Exported files give the originals' stored numbers too, within the tolerances of the models in torch.

Weights, images and tolerances are those of the tests beside this one. `export` compares each file with its model at two
further sizes, one higher than wide, before it is kept. Images with no object and with one: tests/export/test_export.py.
"""

from __future__ import annotations

import pytest
import torch

from pointrend.export import export
from pointrend.zoo.exported import ExportedSegmenter
from tests.reference import test_detectron2_instance as instance
from tests.reference import test_detectron2_semantic as semantic
from tests.reference.discovery import DEFAULT

pytestmark = pytest.mark.slow
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'pointrend[export]'")


def default_set(configurations):
    """The published set alone: a file of hundreds of megabytes for each."""
    return [name for name, golden in configurations.items() if golden.listing.is_relative_to(DEFAULT)]


@pytest.mark.parametrize("name", default_set(instance.CONFIGURATIONS))
def test_boxes_scores_and_masks(name, tmp_path) -> None:
    reference = instance.Reference(instance.CONFIGURATIONS[name], tmp_path)
    first = reference.settings(reference.cases[0])
    reference.apply(first)
    file = ExportedSegmenter(export(reference.model, tmp_path / "model.onnx", logits=True))
    for case in reference.cases:
        assert thresholds(reference.settings(case)) == thresholds(first)
        stored = instance.Outputs(reference.stored, case)
        image = reference.image(case)
        file.runtime.preprocessing = reference.preprocessing(case)
        pixels = file.runtime.resize(image.permute(1, 2, 0).numpy())
        found = file.runtime.session.run({"image": pixels.transpose(2, 0, 1)})
        boxes, labels, scores, logits = map(torch.from_numpy, found)
        assert torch.equal(labels, stored["raw_pred_classes"].long())
        stored.close("raw_pred_boxes", boxes, 0.01)
        stored.close("raw_scores", scores, 1e-5)
        instance.check_probabilities(logits, stored)
        (result,) = file.predict([image])
        instance.check_detections(result, stored)
        instance.check_pasted(result, logits, stored)


def thresholds(settings) -> dict:
    """All that an exported graph holds: not the size of images."""
    return {key: value for key, value in settings.items() if key in instance.BOX_SETTINGS}


@pytest.mark.parametrize("name", default_set(semantic.CONFIGURATIONS))
def test_labels(name, tmp_path) -> None:
    golden = semantic.CONFIGURATIONS[name]
    model = semantic.load(golden, tmp_path)
    file = ExportedSegmenter(export(model, tmp_path / "model.onnx"))
    for case in golden.content["cases"]:
        run = semantic.compute(model, golden, case)
        file.runtime.preprocessing = model.config.preprocessing
        semantic.check_labels(run, file.predict([run.image])[0].labels)
