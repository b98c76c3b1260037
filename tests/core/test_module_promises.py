"""PointRend the module: compiled whole, in half precision, distributed, exported with dynamic sizes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pointrend.core.point_rend import PointRend


@pytest.fixture
def point_rend() -> PointRend:
    torch.manual_seed(0)
    module = PointRend((8, 3), 4, width=16, num_points=40)
    nn.init.normal_(module.head.predictor.weight)  # a fresh residual head changes nothing
    return module


def inputs(batch: int = 2, rows: int = 5, columns: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse logits at stride 8, a map at stride 4, the image."""
    generator = torch.Generator().manual_seed(batch)
    sizes = ((4, rows, columns), (8, 2 * rows, 2 * columns), (3, 8 * rows, 8 * columns))
    coarse, fine, image = (torch.randn(batch, *size, generator=generator) for size in sizes)
    return coarse, fine, image


class Refine(nn.Module):
    def __init__(self, point_rend: PointRend) -> None:
        super().__init__()
        self.point_rend = point_rend

    def forward(self, coarse: Tensor, fine: Tensor, image: Tensor) -> Tensor:
        return self.point_rend.refine(coarse, [fine, image], (image.shape[-2], image.shape[-1]))


class Loss(Refine):
    def forward(self, coarse: Tensor, fine: Tensor, image: Tensor) -> Tensor:
        labels = torch.zeros(image.shape[0], *image.shape[-2:], dtype=torch.int64)
        return self.point_rend.loss(coarse, [fine, image], labels)


traceable = pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < (2, 6),
    reason="torch 2.5 cannot trace isinstance(x, A | B)",
)


@traceable
def test_refine_and_loss_compile_without_a_graph_break(point_rend: PointRend) -> None:
    refine = torch.compile(Refine(point_rend), fullgraph=True, backend="eager")
    torch.testing.assert_close(refine(*inputs()), Refine(point_rend)(*inputs()))
    loss = torch.compile(Loss(point_rend), fullgraph=True, backend="eager")(*inputs())
    loss.backward()
    assert point_rend.head.predictor.weight.grad.abs().sum() > 0


@traceable
def test_masks_of_boxes_compile_without_a_graph_break(point_rend: PointRend) -> None:
    coarse, fine, image = inputs()
    where = {"boxes": torch.tensor([[1.0, 2, 30, 20], [0, 0, 56, 40]]), "image_size": (40, 56)}
    labels = torch.zeros(2, 40, 56, dtype=torch.int64)
    refine = torch.compile(point_rend.refine, fullgraph=True, backend="eager")
    maps = [fine[:1], image[:1]]
    torch.testing.assert_close(
        refine(coarse, maps, 28, **where), point_rend.refine(coarse, maps, 28, **where)
    )
    loss = torch.compile(point_rend.loss, fullgraph=True, backend="eager")
    index = torch.tensor([1, 0])
    loss(coarse, [fine, image], labels, image_index=index, **where).backward()
    assert point_rend.head.predictor.weight.grad.abs().sum() > 0


@traceable
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_compiles_refine_and_loss_to_the_same_numbers(point_rend: PointRend) -> None:
    """A loss draws its points by torch's generator if ``fallback_random`` is set, and by inductor's own otherwise."""
    options: dict[str, str | int | bool] = {"fallback_random": True, "compile_threads": 1}
    refine = torch.compile(Refine(point_rend), fullgraph=True, options=options)
    torch.testing.assert_close(refine(*inputs()), Refine(point_rend)(*inputs()), atol=1e-4, rtol=1e-4)

    def losses_and_gradients(loss: nn.Module) -> list[Tensor]:
        point_rend.zero_grad()
        given = tuple(one.requires_grad_() for one in inputs())
        torch.manual_seed(3)
        value = loss(*given)
        value.backward()
        return [value.detach(), *(one.grad for one in (*given, *point_rend.parameters()))]

    expected = losses_and_gradients(Loss(point_rend))
    compiled = losses_and_gradients(torch.compile(Loss(point_rend), fullgraph=True, options=options))
    for one, other in zip(compiled, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("half_inputs", [False, True], ids=["float32 maps", "half maps"])
def test_autocast_moves_logits_little_and_coordinates_not(
    point_rend: PointRend, dtype: torch.dtype, half_inputs: bool
) -> None:
    exact = Refine(point_rend)(*inputs())
    given = tuple(one.to(dtype) for one in inputs()) if half_inputs else inputs()
    with torch.autocast("cpu", dtype=dtype):
        refined, loss = Refine(point_rend)(*given), Loss(point_rend)(*given)
    assert refined.dtype == torch.float32
    # A point in another cell would differ by about 1, the standard deviation of the logits.
    assert (refined - exact).abs().mean() < 0.05
    loss.backward()
    gradient = point_rend.head.predictor.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_distributed_data_parallel_reaches_every_parameter(point_rend: PointRend, tmp_path: Path) -> None:
    torch.manual_seed(3)
    Loss(point_rend)(*inputs()).backward()
    alone = [one.grad.clone() for one in point_rend.parameters()]
    point_rend.zero_grad()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.manual_seed(3)
        nn.parallel.DistributedDataParallel(Loss(point_rend))(*inputs()).backward()
    finally:
        torch.distributed.destroy_process_group()
    for one, expected in zip(point_rend.parameters(), alone, strict=True):
        torch.testing.assert_close(one.grad, expected)


@pytest.mark.slow
def test_it_is_exported_with_dynamic_batch_height_and_width(point_rend: PointRend) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    rows, columns = (torch.export.Dim(name, min=2, max=512) for name in ("rows", "columns"))
    shapes = tuple({0: batch, 2: factor * rows, 3: factor * columns} for factor in (2, 8))
    program = torch.export.export(
        Refine(point_rend).eval(),
        inputs(),
        dynamic_shapes=({0: batch, 2: rows, 3: columns}, *shapes),
        strict=True,
    )
    for size in ((2, 5, 7), (1, 9, 4), (3, 8, 12)):
        given = inputs(*size)
        torch.testing.assert_close(program.module()(*given), Refine(point_rend)(*given), atol=1e-4, rtol=1e-4)
