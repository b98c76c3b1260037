"""`explain` shows what the model did, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointrend
from pointrend.cli import main
from pointrend.data.shapes import ShapeScenes
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.results import InstanceResult, SemanticResult
from pointrend.visualize import (
    Explanation,
    Window,
    animate_steps,
    color_features,
    compare_results,
    explain,
    plot_features,
    plot_overview,
    plot_resolutions,
    plot_training_points,
    save_figure,
    training_choices,
    variants,
    write_gif,
)
from pointrend.visualize.explain_figures import crop_features
from pointrend.visualize.figures import MAX_HEIGHT, at_pixels

BACKBONE = BackboneConfig("resnet18", norm="batch")


def segmenter(**options: object) -> SemanticSegmenter:
    torch.manual_seed(0)
    rend = SemanticPointRendConfig(features=("p2", "stem"), width=8, depth=1, num_points=40)
    config = SemanticConfig(
        ("a", "b", "c"), backbone=BACKBONE, fpn_channels=8, decoder_channels=8, point_rend=rend
    )
    return SemanticSegmenter(replace(config, **options)).eval()


def detector(head: str = "pointrend", **masks: int) -> InstanceSegmenter:
    torch.manual_seed(0)
    config = InstanceConfig(
        ("x", "y"),
        backbone=BACKBONE,
        preprocessing=Preprocessing(short_edge=40, long_edge=100),
        mask_head=head,
        fpn_channels=8,
        boxes=BoxHeadConfig(width=8, score_threshold=0.0),
        masks=MaskConfig(
            **{"mask_size": 30, "num_points": 49, "width": 8, "coarse_width": 8, "depth": 1, **masks}
        ),
    )
    return InstanceSegmenter(config).eval()


def scene(height: int = 45, width: int = 70) -> torch.Tensor:
    return ShapeScenes(1, size=(height, width))[0].image


@pytest.fixture(scope="module")
def labels() -> Explanation:
    return explain(segmenter(), scene())


@pytest.fixture(scope="module")
def thing() -> Explanation:
    return explain(detector(), scene(), instance=1)


def test_an_image_is_explained_by_its_own_prediction(labels: Explanation) -> None:
    trace: list[pointrend.SubdivisionStep] = []
    (result,) = segmenter().predict([scene()], trace=trace)
    assert isinstance(labels.result, SemanticResult)
    assert torch.equal(labels.result.labels, result.labels)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(labels.steps, trace, strict=True))
    assert {name: len(maps) for name, maps in labels.features.items()} == {"p2": 8, "stem": 64}
    last = at_pixels(labels.grids[-1].argmax(0).numpy(), labels.box, (45, 70))
    assert (last == result.labels.numpy()).all()


def test_an_object_is_explained_by_its_own_prediction(thing: Explanation) -> None:
    (result,) = detector().predict([scene()])
    assert isinstance(thing.result, InstanceResult)
    assert torch.equal(thing.result.boxes, result.boxes[1:2])
    assert thing.coarse is not None
    assert thing.coarse.shape == (1, 7, 7)
    assert [tuple(grid.shape) for grid in thing.grids] == [(1, 7, 7), (1, 14, 14), (1, 28, 28), (1, 30, 30)]
    assert torch.equal(thing.masks().full(3), result.masks.full(1))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_masks_are_what_the_model_gives_at_that_resolution(thing: Explanation, number: int) -> None:
    model = detector(mask_size=thing.grids[number].shape[-1])
    assert torch.equal(thing.masks().full(number), model.predict([scene()])[0].masks.full(1))


def test_the_overview_of_an_image_has_a_column_for_each_resolution(labels: Explanation) -> None:
    figure = plot_overview(labels, window=Window(0, 0, 30, 30))
    assert len(figure.axes) == 3 + 3 * (1 + len(labels.steps))
    assert [axes.get_title() for axes in figure.axes[-2:]] == [
        "predicted there, 32×48",
        "predicted there, 64×96",
    ]
    assert all(axes.get_xlim() == (0, 30) for axes in figure.axes[3:])


def test_the_overview_of_an_object_ends_with_its_masks(thing: Explanation) -> None:
    figure = plot_overview(thing)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[-4:] == ["mask at 7×7", "mask at 14×14", "mask at 28×28", "mask at 30×30"]
    assert {"coarse, 7×7", "7×7, every cell predicted", "49 points, 25% of the cells"} <= set(titles)


@pytest.mark.parametrize("name", ["labels", "thing"])
def test_every_resolution_and_feature_map_has_its_panel(name: str, request: pytest.FixtureRequest) -> None:
    explanation: Explanation = request.getfixturevalue(name)
    names = [axes.get_title() for axes in plot_resolutions(explanation).axes if axes.get_title()]
    assert names == [f"{grid.shape[1]}×{grid.shape[2]}" for grid in explanation.grids]
    assert len(plot_features(explanation).axes) == 1 + len(explanation.features)


def test_the_animation_has_three_moments_for_each_step(thing: Explanation, tmp_path: Path) -> None:
    frames = animate_steps(thing, inches=1.0)
    assert len(frames) == 2 + 3 * len(thing.steps) + 1
    assert {frame.shape for frame in frames} == {frames[0].shape}
    write_gif(frames, tmp_path / "steps.gif")
    with Image.open(tmp_path / "steps.gif") as gif:
        assert gif.n_frames == len(frames)
        assert gif.info["loop"] == 0


def test_an_animation_needs_a_frame(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_gif([], tmp_path / "steps.gif")


def test_a_mask_at_the_starting_resolution_needs_no_step() -> None:
    explanation = explain(detector(mask_size=7), scene())
    assert explanation.steps == ()
    assert len(plot_overview(explanation).axes) == 3 + 4
    assert len(animate_steps(explanation, inches=1.0)) == 3


def test_a_head_without_coarse_prediction_is_explained_without_it() -> None:
    explanation = explain(detector("implicit"), scene())
    assert explanation.coarse is None
    assert "no coarse prediction" in {axes.get_title() for axes in plot_overview(explanation).axes}
    assert list(variants(detector("implicit"), scene())) == ["PointRend"]


@pytest.mark.parametrize("size", [(1, 1), (2, 90)])
def test_odd_sizes_are_explained(size: tuple[int, int]) -> None:
    explanation = explain(segmenter(), scene(*size))
    assert len(plot_overview(explanation).axes) > 3
    assert plot_resolutions(explanation).axes


def test_models_without_points_are_refused() -> None:
    with pytest.raises(ValueError, match="predicts without points"):
        explain(segmenter(point_rend=None), scene())
    with pytest.raises(ValueError, match=r"mask head \(conv28\) predicts without points"):
        explain(detector("conv28"), scene())
    with pytest.raises(ValueError, match="pass `trace=\\[\\]`"):
        explain(torch.nn.Conv2d(1, 1, 1), scene())


def test_an_object_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objects 0\.\.97 in this image, asked for 100"):
        explain(detector(), scene(), instance=100)


def test_an_image_has_no_mask(labels: Explanation) -> None:
    with pytest.raises(ValueError, match="expected an object"):
        labels.masks()


def test_features_have_the_same_colours_each_time_and_grey_where_nothing_varies() -> None:
    maps = torch.randn(5, 4, 6)
    assert (color_features(maps) == color_features(maps.clone())).all()
    assert (color_features(torch.ones(5, 4, 6)) == 128).all()
    assert color_features(torch.randn(1, 1, 1)).shape == (1, 1, 3)
    with pytest.raises(ValueError, match="one map"):
        color_features(torch.zeros(2, 5, 4, 6))


def test_the_cells_under_a_box_cover_it() -> None:
    cells, covered = crop_features(torch.arange(24.0).reshape(1, 4, 6), (0, 0, 60, 40), (12, 11, 31, 40))
    assert covered == (10, 10, 40, 40)
    assert cells[0].tolist() == [[7, 8, 9], [13, 14, 15], [19, 20, 21]]


def test_the_four_strategies_see_the_same_coarse_prediction() -> None:
    coarse = torch.linspace(-4, 4, 28)[None, None, :, None].expand(1, 1, 28, 28)
    choices = training_choices(coarse, 49)
    assert [len(points[0]) for points in choices.values()] == [49] * 4
    distance = [float((points[..., 1] - 0.5).abs().mean()) for points in choices.values()]
    assert distance[3] < distance[2] < min(distance[:2])  # the more biased, the nearer to the boundary
    figure = plot_training_points(coarse, choices, image=scene(), box=(10, 10, 40, 40))
    assert len(figure.axes) == 8


def test_variants_share_their_boxes_and_the_final_one_is_the_prediction() -> None:
    model = detector()
    (result,) = model.predict([scene()])
    found = variants(model, scene(), scale=2)
    assert list(found) == ["coarse", "PointRend"]
    assert all(
        torch.equal(v.boxes, 2 * result.boxes) for v in found.values() if isinstance(v, InstanceResult)
    )
    final = variants(model, scene())["PointRend"]
    assert isinstance(final, InstanceResult)
    assert torch.equal(final.masks.dense(), result.masks.dense())
    assert list(variants(segmenter(), scene())) == ["coarse", "PointRend"]
    assert list(variants(detector("conv28"), scene())) == ["4x conv, 28×28"]


def test_comparisons_show_where_two_predictions_differ() -> None:
    before = torch.zeros(45, 70, dtype=torch.uint8)
    after = before.clone()
    after[30:40, 50:60] = 1
    names = ("a", "b")
    results = {"coarse": SemanticResult(before, names), "PointRend": SemanticResult(after, names)}
    figure = compare_results(scene(), results, windows=[Window(28, 48, 40, 60)])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["coarse", "PointRend"]
    assert figure.axes[2].images[0].get_array().shape == (120, 120, 3)  # magnified ten times
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_comparisons_of_masks_rendered_larger_show_the_image_as_large() -> None:
    figure = compare_results(scene(), variants(detector(), scene(), scale=3), min_score=0.0)
    assert figure.axes[0].images[0].get_array().shape == (3 * 135, 3 * 210, 3)  # and small ones are magnified


def test_results_of_other_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"multiple of the image's \(45, 70\)"):
        compare_results(scene(), {"one": SemanticResult(torch.zeros(9, 9, dtype=torch.uint8))})
    with pytest.raises(ValueError, match="at least one prediction"):
        compare_results(scene(), {})


def test_windows_round_a_pixel_stay_in_the_image() -> None:
    assert Window.around(0, 39, 10, (40, 60)) == Window(30, 0, 40, 10)
    assert Window.around(30, 2, 99, (40, 60)) == Window(0, 0, 40, 60)
    with pytest.raises(ValueError, match="inside 60x40"):
        Window.around(60, 0, 10, (40, 60))


def test_the_same_figure_is_the_same_file(tmp_path: Path, thing: Explanation) -> None:
    (first,), (second,) = (
        save_figure(plot_features(thing), tmp_path / name, formats=("svg",)) for name in ("a", "b")
    )
    assert first.read_bytes() == second.read_bytes()


def test_the_command_writes_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointrend.save(segmenter(), tmp_path / "model.safetensors")
    Image.fromarray(scene().permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    given = [str(tmp_path / "scene.png"), "--model", str(tmp_path / "model.safetensors"), "--at", "30", "20"]
    assert main(["explain", *given, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = ("overview", "resolutions", "features", "comparison", "training", "uncertainty")
    assert names == {"steps.gif"} | {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    with Image.open(tmp_path / "out" / "overview.png") as overview:
        assert np.asarray(overview).std() > 0
    assert "the whole image, explained in" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointrend.save(detector(), tmp_path / "model.safetensors")
    Image.new("RGB", (70, 45), (90, 120, 150)).save(tmp_path / "plain.png")
    given = ["explain", str(tmp_path / "plain.png"), "--model", str(tmp_path / "model.safetensors")]
    given += ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*given, "--instance", "500"]) == 2
    assert main([*given, "--at", "1", "1"]) == 2
    errors = capsys.readouterr().err
    assert "asked for 500" in errors
    assert "--instance" in errors
    pointrend.save(segmenter(), tmp_path / "model.safetensors")
    for option in ("--instance", "--min-score"):
        assert main([*given, option, "1"]) == 2
        assert "leave them out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_one_pixel_wide_does_not_ask_for_an_endless_figure() -> None:
    coarse = torch.zeros(1, 2, 400, 1)
    figure = plot_training_points(coarse, training_choices(coarse, 4))
    assert figure.get_size_inches()[1] == MAX_HEIGHT


def test_the_network_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = SemanticSegmenter.features
    monkeypatch.setattr(
        SemanticSegmenter, "features", lambda self, batch: calls.append(1) or forward(self, batch)
    )
    model = segmenter()
    explain(model, scene())
    assert len(calls) == 1
    assert not model.decoder._forward_hooks
