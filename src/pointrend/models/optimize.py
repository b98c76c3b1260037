"""A trained model made ready to predict: fewer operations, a layout that suits them, half precision where it is wanted.

* Batch norms become part of the convolutions before them. Exact up to rounding.
* Convolutions keep their weights channels-last, and so do all maps behind them. Exact up to rounding.
* "bfloat16": products in half precision by autocast; boxes, sampling positions and the last logits stay float32.
* ``compile``: backbone and pyramid by ``torch.compile``.

``model.optimize()`` of :class:`~pointrend.models.pretrained.Pretrained` is the way in; docs/performance.md has what
each of these gains.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pointrend.models.backbones import FrozenBatchNorm2d

M = TypeVar("M", bound=nn.Module)


def structure_copy(model: M) -> M:
    """A model of the same modules, whose parameters and buffers are not copied but shared."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def fold_norms(model: nn.Module) -> int:
    """Let every convolution do what the batch norm behind it does, in place; how many.

    "Behind it" is the next child of the same parent, as in all of torchvision's blocks and in ours. The norm becomes
    the identity. Only right in evaluation mode.
    """
    folded = 0
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, conv), (behind, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
                setattr(parent, name, _folded(conv, norm))
                setattr(parent, behind, nn.Identity())
                folded += 1
    return folded


def _folded(conv: nn.Conv2d, norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> nn.Conv2d:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded into a convolution")
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    fused = structure_copy(conv)
    fused.weight = nn.Parameter(weight.detach(), requires_grad=False)
    fused.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return fused


def channels_last(model: nn.Module) -> None:
    """Keep the weights of all convolutions of pictures channels-last; others sharing these weights keep theirs."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(weight, requires_grad=False)


def optimized(model: M, *, compile: bool = False) -> M:
    """The folded, channels-last copy; for ``Pretrained.optimize``, which says the rest."""
    fast = structure_copy(model).eval()
    fold_norms(fast)
    channels_last(fast)
    if compile:
        for name in ("backbone", "fpn"):
            part = getattr(fast, name, None)
            if part is not None:
                cast(nn.Module, part).compile(dynamic=True)
    return fast
