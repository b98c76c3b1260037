"""CamVid from all pixels' labels, from 1 % and from 0.1 % of them: the same heads on one frozen network.

    python benchmarks/frozen_labels.py --data ../shared/data --seed 0 --out runs/labels-0

A coarse head (two 1x1 convolutions on the feature maps of the bundled `photo-semantic`, which never saw CamVid) and
PointRend's residual point head learn from the same images in the same number of updates. Of the sparse labels the
point head learns with `sampling="labelled"`. Scores go to OUT/scores.json; benchmarks/tables.py prints them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from camvid import keep_few_labels
from frozen_masks import LEVELS, feature_maps
from runs import SemanticScores, print_progress, training_parser, write_result
from torch import Tensor, nn
from torch.nn import functional as F

from pointrend.core import PointRend, PointSampling
from pointrend.data.label_folders import SemanticFolder

SHARES = (1.0, 0.01, 0.001)


class Heads(nn.Module):
    """Coarse logits at stride 4 and points."""

    def __init__(self, channels: int, classes: int, sampling: PointSampling) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(len(LEVELS) * channels, 128, 1), nn.ReLU(), nn.Conv2d(128, classes, 1)
        )
        self.point_rend = PointRend([channels], classes, residual=True, sampling=sampling)

    def forward(self, maps: dict[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Coarse logits and P2, without the padding of the network's input."""
        fine = maps["p2"][:, :, : size[0] // 4, : size[1] // 4]
        whole = [F.interpolate(maps[level], size=maps["p2"].shape[2:], mode="bilinear") for level in LEVELS]
        return self.coarse(torch.cat(whole, 1)[:, :, : fine.shape[2], : fine.shape[3]]), fine

    def loss(self, maps: dict[str, Tensor], labels: Tensor) -> Tensor:
        size = (labels.shape[1], labels.shape[2])
        coarse, fine = self(maps, size)
        whole = F.interpolate(coarse, size=size, mode="bilinear")
        return F.cross_entropy(whole, labels, ignore_index=255) + self.point_rend.loss(coarse, [fine], labels)


def batch(maps: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {level: torch.cat([one[level] for one in maps]).float() for level in LEVELS}


@torch.inference_mode()
def score(
    heads: dict[str, Heads], maps: Sequence[dict[str, Tensor]], data: SemanticFolder
) -> dict[str, dict[str, float]]:
    scores = SemanticScores(len(data.class_names))
    for number, own in enumerate(maps):
        labels = data[number].target.labels
        size = (labels.shape[0], labels.shape[1])
        predictions = {}
        for name, model in heads.items():
            coarse, fine = model(batch([own]), size)
            predictions[f"{name}, interpolated"] = F.interpolate(coarse, size=size, mode="bilinear")
            predictions[f"{name}, N=2048"] = model.point_rend.refine(coarse, [fine], size, num_points=2048)
        scores.update(predictions, labels)
    return scores.percent()


def main() -> None:
    parser = training_parser(__doc__, data="camvid/", steps=100, batch=2, lr=2e-3)
    parser.add_argument("--images", type=int, default=30, help="to train on, evenly spread")
    parser.add_argument("--held-out", type=int, default=10, help="to score on, evenly spread")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)

    training, held_out = (
        SemanticFolder.from_list(arguments.data / "camvid" / name) for name in ("train.txt", "val.txt")
    )
    training.pairs = training.pairs[:: len(training.pairs) // arguments.images][: arguments.images]
    held_out.pairs = held_out.pairs[:: len(held_out.pairs) // arguments.held_out][: arguments.held_out]
    maps = feature_maps(training.pairs)
    classes, channels = len(training.class_names), maps[0]["p2"].shape[1]
    images, scored, heads = training.pairs, feature_maps(held_out.pairs), {}
    started = time.time()
    for share in SHARES:
        training.pairs = images
        sampling = PointSampling(2048)
        if share < 1:
            training.pairs = keep_few_labels(training, share, arguments.out / f"{share:g}")
            sampling = PointSampling(2048, strategy="labelled")
        labels = torch.stack(
            [sample.target.labels for sample in map(training.__getitem__, range(len(images)))]
        )
        torch.manual_seed(arguments.seed)
        model = Heads(channels, classes, sampling)
        optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=1e-4)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=arguments.steps)
        drawing = torch.Generator().manual_seed(arguments.seed)
        for step in range(arguments.steps):
            chosen = torch.randperm(len(images), generator=drawing)[: arguments.batch]
            optimizer.zero_grad()
            loss = model.loss(batch([maps[number] for number in chosen.tolist()]), labels[chosen].long())
            loss.backward()
            optimizer.step()
            rate.step()
            print_progress(step, {"loss": loss.item()})
        heads[f"{share:.1%}"] = model.eval()
    write_result(score(heads, scored, held_out), time.time() - started, arguments)


if __name__ == "__main__":
    main()
