"""Initial weights under Caffe2's names, as Detectron2's heads start from them. Biases start from 0."""

from __future__ import annotations

from torch import nn

Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def normal_fill(layer: Layer, std: float) -> None:
    """N(0, std)."""
    nn.init.normal_(layer.weight, std=std)
    _no_bias(layer)


def msra_fill(layer: Layer) -> None:
    """He normal, scaled for the number of outputs."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _no_bias(layer)


def xavier_fill(layer: Layer) -> None:
    """Uniform with variance 1 / inputs: what Caffe2 calls Xavier, not Glorot's mean of inputs and outputs."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    _no_bias(layer)


def _no_bias(layer: Layer) -> None:
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
