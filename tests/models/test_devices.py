"""Half precision is used where it is faster, and only there."""

from __future__ import annotations

import pytest
import torch

from pointrend.models.devices import bfloat16_unit, faster_precision
from pointrend.models.semantic import SemanticSegmenter

CPU = torch.device("cpu")


def has(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr("pointrend.models.devices.cpu_features", lambda: frozenset(flags))


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ((), None),
        (("avx2", "avx512f", "avx512_vnni"), None),
        (("avx512_bf16",), "AVX-512 BF16"),
        (("avx512_bf16", "amx_bf16"), "AMX"),
        (("asimd", "bf16"), "Arm BF16"),
    ],
)
def test_a_processor_says_what_multiplies_bfloat16(monkeypatch, flags, unit) -> None:
    has(monkeypatch, *flags)
    assert bfloat16_unit(CPU) == unit


def test_bfloat16_becomes_float32_with_a_warning_where_it_would_be_slower(monkeypatch) -> None:
    model = SemanticSegmenter(classes=2, backbone="resnet18").eval()
    assert model.optimize("bfloat16").precision == torch.bfloat16
    assert model.optimize("auto").precision is None
    has(monkeypatch, "avx2")
    with pytest.warns(UserWarning, match=r"bfloat16: slower than float32.*lacks AVX-512 BF16"):
        assert model.optimize("bfloat16").precision is None
    assert faster_precision("float16", CPU) == "float16"


def test_a_model_moved_to_a_slower_device_computes_in_float32(monkeypatch) -> None:
    model = SemanticSegmenter(classes=2, backbone="resnet18").eval().optimize("bfloat16")
    has(monkeypatch, "avx2")
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    with pytest.warns(UserWarning, match="float32 is used"):
        model.predict([image])
    model.predict([image])  # said once
