"""Grids read in row chunks against the textbook's, in float64 where rounding is out of the question."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from pointrend.core import PointHead, PointRend, PointSampling, lazy_grid
from pointrend.core.fast_point_head import FastImagePointHead
from pointrend.core.lazy_grid import DenseLogits, UpsampledLogits
from pointrend.core.selection import margin_uncertainty, uncertainty_for
from pointrend.core.subdivision import render, subdivide, subdivision_sizes


@pytest.fixture(params=[1, 2**21], ids=["thin chunks", "one chunk"])
def budget(request, monkeypatch):
    monkeypatch.setitem(lazy_grid.CHUNK_BYTES, "cpu", request.param)


def everything(grid):
    return grid.rows(0, grid.shape[1])


def lazily(logits, predict_at, *, sizes, num_points):
    return render(DenseLogits(logits, labels_at=sizes[-1]), predict_at, sizes=sizes, num_points=num_points)


def wavy(classes: int):
    """A point head without a network: (1, P, 2) -> (1, C, P) float64."""
    directions = 30 * torch.randn(2, classes).double()
    return lambda points: 3 * torch.sin(points.double() @ directions).transpose(1, 2)


@pytest.mark.parametrize("output", [(28, 36), (56, 72), (41, 57), (9, 100), (3, 2), (1, 1)])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_row_chunks_give_the_textbooks_points_logits_and_labels(budget, output, classes) -> None:
    coarse, predict_at = torch.randn(1, classes, 7, 9).double(), wavy(classes)
    sizes = subdivision_sizes((7, 9), output)
    trace: list = []
    textbook = subdivide(
        coarse, predict_at, sizes=sizes, num_points=40, uncertainty=uncertainty_for(classes), trace=trace
    )[0]
    grid = lazily(coarse[0], predict_at, sizes=sizes, num_points=40)
    assert grid.shape == textbook.shape
    torch.testing.assert_close(everything(grid), textbook, atol=1e-9, rtol=1e-9)
    assert grid.index.tolist() == sorted(trace[-1].index[0].tolist())
    labels = textbook.argmax(0) if classes > 1 else (textbook[0] >= 0).long()
    assert torch.equal(grid.label_map().long(), labels)
    grid.labels = None
    assert torch.equal(grid.label_map().long(), labels)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_images_of_a_batch_are_rendered_as_they_are_refined(residual, every, depth) -> None:
    module = PointRend(
        [4, 2],
        3,
        width=8,
        depth=depth,
        coarse_each_layer=every,
        residual=residual,
        sampling=PointSampling(30),
        num_points=50,
    ).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    coarse = torch.randn(2, 3, 5, 6).double()
    maps = [torch.randn(2, 4, 10, 12).double(), torch.randn(2, 2, 20, 24).double()]
    module.head.fast = False
    refined = module.refine(coarse, maps, (33, 40))
    module.head.fast = True
    torch.testing.assert_close(module.refine(coarse, maps, (33, 40)), refined, atol=1e-9, rtol=1e-9)
    rendered = torch.stack([everything(grid) for grid in module.render(coarse, maps, (33, 40))])
    torch.testing.assert_close(rendered, refined, atol=1e-9, rtol=1e-9)
    assert module.render(coarse[:0], [level[:0] for level in maps], (33, 40)) == []


def test_a_grid_may_be_cropped_and_resized_again(budget) -> None:
    coarse, predict_at = torch.randn(1, 4, 8, 8).double(), wavy(4)
    grid = lazily(coarse[0], predict_at, sizes=[(16, 16), (32, 32)], num_points=30)
    logits = everything(grid)[None]
    final = F.interpolate(logits[..., :29, :21], size=(50, 20), mode="bilinear")[0]
    ours = grid.crop((29, 21)).resize((50, 20))
    torch.testing.assert_close(everything(ours), final, atol=1e-9, rtol=1e-9)
    assert torch.equal(ours.label_map().long(), final.argmax(0))
    assert torch.equal(grid.crop((29, 21)).label_map().long(), logits[0, :, :29, :21].argmax(0))
    best = final.softmax(0).topk(2, dim=0).values
    torch.testing.assert_close(ours.label_uncertainty(), (1 - (best[0] - best[1])).float())


def test_the_point_head_takes_many_points_in_parts(monkeypatch) -> None:
    module = PointRend(4, 3, width=8, num_points=10).double()
    torch.nn.init.normal_(module.head.predictor.weight)
    coarse, level = torch.randn(1, 3, 5, 6).double(), torch.randn(1, 4, 10, 12).double()
    module.head.fast = False
    refined = module.refine(coarse, level, (10, 12), num_points=100)[0]
    module.head.fast = True
    monkeypatch.setattr("pointrend.core.fast_point_head.POINTS_AT_ONCE", 7)
    torch.testing.assert_close(everything(module.render(coarse, level, (10, 12), num_points=100)[0]), refined)


@pytest.mark.parametrize("count", [1, 7, 100, 5000])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_most_uncertain_are_found_whatever_the_chunks(count, classes, monkeypatch) -> None:
    grid = UpsampledLogits(DenseLogits(torch.randn(classes, 23, 31).double()), (46, 62))
    margin = margin_uncertainty(everything(grid)[None]) if classes > 1 else -everything(grid).abs()
    expected = margin.flatten().topk(min(count, 46 * 62)).indices.sort().values
    for budget in (1, 5000, 2**21):
        monkeypatch.setitem(lazy_grid.CHUNK_BYTES, "cpu", budget)
        assert torch.equal(grid.most_uncertain(count), expected[None])


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 5), (3, 9), (8, 12), (11, 12)])
def test_points_are_put_into_a_chunk_without_reading_how_many_they_are(first, last) -> None:
    grid = UpsampledLogits(DenseLogits(torch.randn(3, 6, 7)), (12, 14))
    index = torch.randperm(12 * 14)[:60].sort().values
    grid.put(index[None], torch.randn(1, 3, 60))
    chunk = torch.randn(3, last - first, 14)
    unread = grid._with_points_unread(chunk.clone(), first, last)  # what a GPU does
    assert torch.equal(unread, grid._with_points(chunk, first, last))


def test_nothing_new_is_kept_from_chunk_to_chunk(monkeypatch) -> None:
    """Small tensors between freed chunks would keep the heap from using these again."""
    monkeypatch.setitem(lazy_grid.CHUNK_BYTES, "cpu", 1)
    top = lazy_grid._TopCells(10, 1000, torch.float32, torch.device("cpu"))
    places = {top.uncertainties.data_ptr(), top.cells.data_ptr()}
    for start in range(0, 1000, 50):
        top.add(torch.rand(50), start)
        assert {top.uncertainties.data_ptr(), top.cells.data_ptr()} == places
    assert len(top.uncertainties) == 50
    assert len(top.best()[0]) == 10


fake_cuda = pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < (2, 6) and not torch.cuda.is_available(),
    reason="up to torch 2.5, fake CUDA tensors need a driver",
)


@pytest.mark.parametrize(
    ("device", "budget"),
    [
        ("cpu", 2**21),
        pytest.param("cuda", 2**28, marks=fake_cuda),
        pytest.param("cuda", 2**11, marks=fake_cuda),
    ],
)
def test_an_image_never_waits_for_the_device_nor_chunks_for_a_gpu(device, budget, monkeypatch) -> None:
    """Fake tensors have shapes and no values: a value that is read, or decides a shape, raises an error."""
    monkeypatch.setitem(lazy_grid.CHUNK_BYTES, device, budget)
    with FakeTensorMode(), torch.device(device):
        head, coarse = PointHead(6, 5, width=8, residual=True), torch.rand(1, 5, 12, 16)
        predict_at = FastImagePointHead(head, [torch.rand(1, 6, 24, 32)], coarse)
        grid = lazily(coarse[0], predict_at, sizes=[(24, 32), (41, 57)], num_points=50)
        assert grid.label_map().shape == (41, 57)
        assert everything(grid).shape == (5, 41, 57)
