"""Faster copies of trained models: batch norms folded into the convolutions, weights channels-last."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeGuard, TypeVar, cast

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
    the identity. Only right in evaluation mode. In networks of other libraries the order of children is trusted in
    `nn.Sequential` alone, and layers that do more than their names say (a norm with its activation) are left alone.
    """
    folded = 0
    networks = [module for module in model.modules() if getattr(module, "foreign", False)]
    foreign = {id(module) for network in networks for module in network.modules()}
    for parent in list(model.modules()):
        if id(parent) in foreign and not isinstance(parent, nn.Sequential):
            continue
        children = list(parent.named_children())
        for (name, conv), (behind, norm) in pairwise(children):
            if type(conv) is nn.Conv2d and _is_norm(norm):
                setattr(parent, name, _folded(conv, norm))
                setattr(parent, behind, nn.Identity())
                folded += 1
    return folded


def _is_norm(module: nn.Module) -> TypeGuard[FrozenBatchNorm2d | nn.BatchNorm2d]:
    """Whether it is a batch norm and does nothing else."""
    return type(module) in (FrozenBatchNorm2d, nn.BatchNorm2d)


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
    """Keep the weights of all convolutions of images channels-last; others sharing these weights keep theirs."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(weight, requires_grad=False)


def optimized(model: M, *, compile: bool = False) -> M:
    """The folded, channels-last copy in evaluation mode; see `models.base.Pretrained.optimize`."""
    fast = structure_copy(model).eval()
    fold_norms(fast)
    channels_last(fast)
    if compile:
        for name in ("backbone", "fpn", "network"):
            part = getattr(fast, name, None)
            if part is not None:
                cast(nn.Module, part).compile(dynamic=True)
    return fast
