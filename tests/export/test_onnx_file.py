"""Each operator that we translate ourselves gives what torch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pointrend.models.boxes import grouped_nms


class Suppress(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, group: Tensor) -> Tensor:
        return grouped_nms(boxes, scores, group, 0.5, 7)


@pytest.fixture(scope="module")
def suppress(exporting, tmp_path_factory):
    from pointrend.export.onnx_file import trace_any, write_onnx

    onnxruntime = pytest.importorskip("onnxruntime")
    path: Path = tmp_path_factory.mktemp("nms") / "nms.onnx"
    example = (torch.rand(5, 4), torch.rand(5), torch.zeros(5, dtype=torch.int64))
    number = torch.export.Dim("number", min=0)
    program = trace_any(Suppress(), example, ({0: number}, {0: number}, {0: number}))
    write_onnx(program, path, ["boxes", "scores", "group"], ("kept",), {})
    session = onnxruntime.InferenceSession(str(path))
    return lambda *arrays: session.run(
        None, dict(zip(("boxes", "scores", "group"), (a.numpy() for a in arrays), strict=True))
    )[0]


@pytest.mark.parametrize("count", [0, 1, 3, 60, 400])
@pytest.mark.parametrize("levels", [3, 1000])
def test_suppression_within_groups(suppress, count, levels) -> None:
    corner = torch.rand(count, 2) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(count, 2) * 40], 1)
    scores = (torch.rand(count) * levels).floor() / levels  # with three levels, many are equal
    group = torch.randint(0, 4, (count,))
    expected = grouped_nms(boxes, scores, group, 0.5, 7)
    assert np.array_equal(suppress(boxes, scores, group), expected.numpy())
