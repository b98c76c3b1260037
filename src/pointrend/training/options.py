"""The options of trainings, as `pointrend train` and `finetune` show them; nothing heavy is imported here.

None means: as the recipe says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from pointrend.training.config import TrainingConfig
    from pointrend.training.recipe import Recipe

PresetName = Literal[
    "semantic-fpn-mobilenet",
    "semantic-fpn-resnet18",
    "semantic-fpn-resnet50",
    "semantic-deeplab-mobilenet",
    "semantic-deeplab-resnet50",
    "instance-mobilenet",
    "instance-resnet18",
    "instance-resnet50",
]
PRESETS: tuple[str, ...] = get_args(PresetName)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Data, schedule, and how the training runs on this machine."""

    data: str = "shapes"
    """Dataset: "shapes" (generated scenes) or a folder."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data to learn; all if not given."""
    steps: int | None = None
    """Updates of the weights; what the schedule says of them is scaled with it."""
    batch_size: int | None = None
    """Images in each update, of all processes and accumulated parts together. The learning rate of SGD follows it."""
    lr: float | None = None
    """Learning rate."""
    crop: tuple[int, int] | None = None
    """Height and width of the crops that semantic models are trained on."""
    sample_points: int | None = None
    """Of data with labelled points, so many of each object's are drawn anew each time (point augmentation); 0: all."""
    size: int | None = None
    """Short edge in pixels at which instance models see images."""
    evaluate: bool = True
    """Score the model on the validation part at the end."""
    evaluate_every: int | None = None
    """Updates between further scores before that; 0: none."""
    metric: str | None = None
    """Score by which the best model is kept as OUT/best.safetensors, such as mIoU or "boundary AP"."""
    patience: int | None = None
    """Evaluations without a better score after which the training ends; 0: never early."""
    limit: int | None = None
    """Score at most so many images of the validation part; 200, or all for a published training, if not given."""
    seed: int = 0
    """Of the initial weights, the order of the images and their random changes."""
    out: Path = Path("runs/train")
    """Folder for the models, the log and the scores."""
    resume: bool = False
    """Go on from the newest checkpoint in OUT; from the start where there is none."""
    checkpoint_every: int | None = None
    """Updates between checkpoints to resume from."""
    grad_accum: int = 1
    """Gradient accumulation steps: parts that each process computes its share of an update in, to save memory."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the network; weights, coordinates and losses stay float32. float16 needs a GPU."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, such as 0.999, which is then scored and saved; 0: none."""
    channels_last: bool = False
    """Use the channels_last memory format."""
    compile: str | None = None
    """Compile the backbone by this torch.compile backend, such as inductor."""
    workers: int = 0
    """Processes that read images beside the training."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""
    vis_every: int = 0
    """Updates between images of predictions and of the points chosen for them, in OUT/images; 0: none."""
    wandb: str | None = None
    """Project at Weights & Biases that numbers and images go to as well."""

    def apply_to(self, recipe: Recipe) -> Recipe:
        """The recipe, but for what is given here.

        Raises:
            ValueError: for numbers that no training has.
        """
        changes = _given(
            batch_size=self.batch_size,
            learning_rate=self.lr,
            evaluate_every=self.evaluate_every,
            metric=self.metric,
            patience=self.patience,
            state_every=self.checkpoint_every,
        )
        if self.batch_size and self.lr is None and recipe.optimizer == "sgd":
            # A learning rate belongs to its batch size (Goyal et al., 2017).
            changes["learning_rate"] = recipe.learning_rate * self.batch_size / recipe.batch_size
        if not self.evaluate:
            unused = [
                name for name in ("evaluate_every", "metric", "patience", "limit") if getattr(self, name)
            ]
            if unused:
                raise ValueError(f"{', '.join(unused)}: this training is not evaluated (--no-evaluate)")
            changes |= {"metric": None, "patience": 0, "evaluate_every": 0}
        return replace(
            recipe,
            **changes,
            seed=self.seed,
            accumulate=self.grad_accum,
            precision=self.precision,
            average=self.ema,
            channels_last=self.channels_last,
            compile=self.compile,
            draw_every=self.vis_every,
        )


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """The network's points."""

    pointrend: bool = True
    """Refine by points; --no-pointrend trains the baseline: 4x conv with 28x28 masks, or coarse logits interpolated."""
    sampling: Literal["regular-grid", "uniform", "mildly-biased", "heavily-biased", "labelled"] | None = None
    """How training points are chosen: a strategy of the paper's Table 4, instead of k and beta one by one; "labelled":
    among the labelled pixels, for label maps of few points or scribbles."""
    train_points: int | None = None
    """N in training: points on which the point head is trained, in each box or image."""
    oversample: float | None = None
    """k: candidates for each training point."""
    importance: float | None = None
    """beta: share of the training points chosen by uncertainty."""
    points: int | None = None
    """N at inference: points of each subdivision step."""
    subdivision_steps: int | None = None
    """Subdivision steps at inference."""
    point_head: Literal["paper", "residual"] | None = None
    """"paper" predicts logits, "residual" a correction of the interpolated coarse logits. Presets have the latter."""
    head_depth: int | None = None
    """Hidden layers of the point head; 3 in the paper."""
    head_width: int | None = None
    """Channels of these layers; 256 in the paper."""

    def apply_to_network(self, config: TrainingConfig) -> TrainingConfig:
        """The training with these points.

        Raises:
            ValueError: points for a network without a point head.
        """
        sampling = _given(
            num_points=self.train_points, oversample_ratio=self.oversample, importance_ratio=self.importance
        )
        if self.sampling is not None:
            if self.oversample is not None or self.importance is not None:
                raise ValueError(
                    "sampling: a strategy has its own k and beta; leave --oversample and --importance out"
                )
            from pointrend.training.paper import sampling_fields

            sampling |= sampling_fields(self.sampling.replace("-", "_"))
        changes = _given(
            num_points=self.points,
            subdivision_steps=self.subdivision_steps,
            depth=self.head_depth,
            width=self.head_width,
            residual=None if self.point_head is None else self.point_head == "residual",
        )
        if not self.pointrend:
            if sampling or changes:
                raise ValueError("points: --no-pointrend trains a network without a point head")
            return config.without_points()
        return config.with_point_head(sampling=sampling, **changes) if sampling or changes else config


def _given(**values: object) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}
