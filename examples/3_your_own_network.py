# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. PointRend on your own network
#
# `pointrend.PointRend` needs two things of a network: its logits before they are enlarged, and a finer
# feature map. It imports nothing but torch. Here the network is a few convolutions;
# `refine_your_segmenter.py` beside this file does the same to torchvision's DeepLabV3, FCN and LR-ASPP.

# %%
# %matplotlib inline
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pointrend
from pointrend.data.shapes import ShapeScenes
from pointrend.visualize import color_labels, largest_differences, plot_steps, side_by_side

STEPS = int(os.environ.get("STEPS", "400"))  # the tests do a few
torch.manual_seed(0)
scenes = ShapeScenes(64, size=(96, 128), objects=(3, 5), hue_spread=0.04)
images = torch.stack([sample.image for sample in scenes]).float() / 127.5 - 1  # (64, 3, 96, 128)
labels = torch.stack([sample.target.labels for sample in scenes]).long()  # (64, 96, 128)

# %% [markdown]
# ## A network
#
# It predicts at stride 8, as many do. What is new is the line that returns the stem's output as well.

# %%


def block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


class Network(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 24), block(24, 32, 2))
        self.body = nn.Sequential(block(32, 64, 2), block(64, 96, 2), block(96, 96), block(96, 96))
        self.head = nn.Conv2d(96, classes, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(images)  # (N, 32, H/2, W/2)
        return self.head(self.body(fine)), fine  # logits (N, 6, H/8, W/8)


network = Network(classes=6)
point_rend = pointrend.PointRend(fine_channels=32, num_classes=6, width=64, num_points=512)

# %% [markdown]
# ## Training
#
# Your loss, plus PointRend's at points of its own choice. Both train the network.

# %%
optimizer = torch.optim.AdamW([*network.parameters(), *point_rend.parameters()], lr=2e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
for step in range(STEPS):
    chosen = torch.randint(0, len(images), (8,))
    batch, truth = images[chosen], labels[chosen]
    if step % 2:  # every other time mirrored
        batch, truth = batch.flip(-1), truth.flip(-1)
    coarse, fine = network(batch)
    yours = F.cross_entropy(F.interpolate(coarse, truth.shape[-2:], mode="bilinear"), truth)
    points = point_rend.loss(coarse, fine, truth)
    optimizer.zero_grad()
    (yours + points).backward()
    optimizer.step()
    schedule.step()
    if step % 100 == 0 or step == STEPS - 1:
        print(f"step {step + 1}: yours {yours.item():.3f}, at points {points.item():.3f}")

# %% [markdown]
# ## Refining
#
# `refine` goes to any size. On scenes that were not trained on:

# %%
held_out = list(ShapeScenes(16, first=1_000_000, size=(96, 128), objects=(3, 5), hue_spread=0.04))
network.eval()
trace: list[pointrend.SubdivisionStep] = []
with torch.no_grad():
    coarse, fine = network(torch.stack([sample.image for sample in held_out]).float() / 127.5 - 1)
    before = F.interpolate(coarse, (96, 128), mode="bilinear").argmax(1)
    after = point_rend.refine(coarse, fine, (96, 128), trace=trace).argmax(1)
truth = torch.stack([sample.target.labels for sample in held_out])
print(
    f"pixels right: {(before == truth).float().mean():.1%} interpolated, {(after == truth).float().mean():.1%} refined"
)

# %%
gained = ((after == truth).float() - (before == truth).float()).sum((1, 2))
best = int(gained.argmax())
palette = scenes.palette
windows = largest_differences(before[best], after[best], truth=truth[best], size=32)
side_by_side(
    {
        "image": held_out[best].image.permute(1, 2, 0).numpy(),
        "interpolated": color_labels(before[best], palette),
        "refined": color_labels(after[best], palette),
        "truth": color_labels(truth[best], palette),
    },
    windows=windows,
    names=scenes.class_names,
    colors=palette,
    width=2.2,
)

# %% [markdown]
# Where it looked:

# %%
plot_steps(trace, image=held_out[best].image, region=best, palette=palette)
