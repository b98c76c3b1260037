"""`pointrend demo` and `pointrend explain`: what PointRend gains, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tyro.conf import Positional

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from pointrend.models.instance import InstanceSegmenter
    from pointrend.models.semantic_model import SemanticModel
    from pointrend.results import Result
    from pointrend.visualize import Explanation, Window


@dataclass(frozen=True)
class Explain:
    """Draw every step of a prediction: features, coarse prediction, points, each step of the subdivision.

    Writes to OUT, each as PNG and SVG: overview (everything in one figure), resolutions (the prediction at each
    resolution), features, comparison (coarse and PointRend, magnified where they differ), training (the paper's four
    ways to choose training points), uncertainty; and steps.gif, the subdivision as an animation.
    """

    image: Positional[Path]
    """An image."""
    model: str = "photo-semantic"
    """A checkpoint written by `pointrend train`, or a name listed by `pointrend zoo`; with a point head."""
    instance: int = 0
    """Of an instance model, which object to explain; 0 is the surest."""
    at: tuple[int, int] | None = None
    """Of a semantic model, x and y of the pixel round which to magnify; where most changes, when not given."""
    baseline: str | None = None
    """Another model, such as one of 4x conv, for the first panel of the comparison."""
    out: Path = Path("explained")
    """Folder to write to."""
    points: int = 196
    """Training points of each strategy, a square number; 196 in the paper."""
    min_score: float = 0.5
    """Objects with a lower score are left out of the comparison."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""

    def run(self) -> int:
        """Explain."""
        from pointrend.cli.console import announce, load_model

        announce(f"loading {self.model}")
        from pointrend.predict import Predictor
        from pointrend.visualize import animate_steps, explain, save_figure, write_gif

        model = cast("InstanceSegmenter | SemanticModel", load_model(self.model))
        if not hasattr(model, "loss"):
            raise ValueError(f"{self.model}: expected a checkpoint; an exported file shows no steps")
        for_objects = self.instance != Explain.instance or self.min_score != Explain.min_score
        if model.task == "semantic" and for_objects:
            raise ValueError("--instance and --min-score are for models that find objects; leave them out")
        predictor = Predictor(model, device=self.device)
        image = predictor.read(self.image)
        explanation = explain(predictor.model, image, instance=self.instance)
        window = self._window(explanation)
        files = [self.out / "steps.gif"]
        write_gif(animate_steps(explanation, window=window), files[0])
        for name, figure in self._figures(model, image, explanation, window):
            files += save_figure(figure, self.out / name)
        print(f"{self.image}: {explanation.title}, explained in {self.out}")
        print("  " + ", ".join(sorted(file.name for file in files)))
        return 0

    def _window(self, explanation: Explanation) -> Window | None:
        from pointrend.visualize import Window

        if self.at is None:
            return None
        if not explanation.semantic:
            raise ValueError("--at magnifies label maps; choose an object of an instance model by --instance")
        size = (explanation.image.shape[0], explanation.image.shape[1])
        return Window.around(*self.at, max(24, min(size) // 4), size)

    def _figures(
        self,
        model: InstanceSegmenter | SemanticModel,
        image: Tensor,
        explanation: Explanation,
        window: Window | None,
    ) -> Iterator[tuple[str, Figure]]:
        from pointrend.visualize import (
            plot_features,
            plot_overview,
            plot_resolutions,
            plot_training_points,
            plot_uncertainty,
            training_choices,
        )

        yield "overview", plot_overview(explanation, window=window)
        yield "resolutions", plot_resolutions(explanation, window=window)
        yield "features", plot_features(explanation)
        yield "comparison", self._comparison(model, image, window)
        coarse = explanation.start if explanation.coarse is None else explanation.coarse
        choices = training_choices(coarse[None], self.points)
        yield (
            "training",
            plot_training_points(
                coarse[None],
                choices,
                image=explanation.image,
                box=explanation.box,
                palette=explanation.palette or None,
            ),
        )
        uncertainty = explanation.result.uncertainty
        assert uncertainty is not None
        if explanation.semantic:
            yield "uncertainty", plot_uncertainty(explanation.image, uncertainty)
        else:
            yield "uncertainty", plot_uncertainty(explanation.image, uncertainty[0], box=explanation.box)

    def _comparison(
        self, model: InstanceSegmenter | SemanticModel, image: Tensor, window: Window | None
    ) -> Figure:
        """4x conv (or whatever --baseline names), coarse, PointRend."""
        from pointrend.cli.console import load_model
        from pointrend.visualize import compare_results, variants

        scale = max(1, min(4, 1600 // max(image.shape[1:]))) if model.task == "instance" else 1
        own = variants(model, image, scale=scale)
        others: dict[str, Result] = {}
        if self.baseline is not None:
            other = cast(
                "InstanceSegmenter | SemanticModel", load_model(self.baseline).to(model.device).eval()
            )
            if other.task != model.task:
                raise ValueError(f"--baseline: expected a model for {model.task!r}, got {other.task!r}")
            name, found = list(variants(other, image, scale=scale).items())[-1]
            others = {name if name not in own else f"{name} of {self.baseline}": found}
        names = list(own)
        return compare_results(
            image,
            others | own,
            between=(names[0], names[-1]),
            windows=None if window is None else [window],
            min_score=self.min_score,
        )


@dataclass(frozen=True)
class Demo:
    """See what PointRend gains: the bundled model on the bundled photographs, drawn, timed and scored.

    Needs no download and less than a minute on the CPU of a laptop.
    """

    out: Path = Path("runs/demo")
    """Folder for the images and the scores."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""

    def run(self) -> int:
        """Run the demo."""
        from pointrend.demo import run

        run(self.out, device=self.device)
        return 0
