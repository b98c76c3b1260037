"""The photographs that come with the package have label maps of their size, and a licence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointrend.samples import SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
def test_labels_belong_to_the_photograph(name: str) -> None:
    sample = SAMPLES[name]
    with Image.open(sample.image) as image, Image.open(sample.labels) as labels:
        assert image.size == labels.size
        assert set(np.unique(labels)) <= {*range(21), 255}
        assert 15 in np.unique(labels), "no person"


def test_every_file_has_a_licence_and_all_are_small() -> None:
    folder = next(iter(SAMPLES.values())).image.parent
    text = (folder / "LICENSES.md").read_text()
    photographs = sorted(folder.glob("*.jpg"))
    assert [path.stem for path in photographs] == sorted(SAMPLES)
    assert all(f"`{path.name}`" in text for path in photographs)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000
