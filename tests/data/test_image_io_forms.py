"""An image in any form is the same image; what is none of them gets an answer that names the forms."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data import remote
from pointrend.data.image_io import to_image
from tests.helpers import FolderHandler, serving

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "a b.png")
    return tmp_path / "a b.png"


@pytest.fixture
def server(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("POINTREND_OFFLINE", raising=False)
    with serving(functools.partial(FolderHandler, directory=str(path.parent))) as port:
        yield f"http://127.0.0.1:{port}"


def test_files_bytes_pillow_images_arrays_and_tensors_are_the_same_image(path: Path) -> None:
    forms = {
        "path": path,
        "text": str(path),
        "address": path.as_uri(),
        "address as a path": Path(path.as_uri()),
        "bytes": path.read_bytes(),
        "open file": io.BytesIO(path.read_bytes()),
        "pillow": Image.fromarray(PIXELS),
        "array": PIXELS,
        "not contiguous": np.ascontiguousarray(PIXELS[::-1])[::-1],
        "read only": np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(5, 7, 3),
        "tensor": EXPECTED,
    }
    for name, form in forms.items():
        image = to_image(form)
        assert torch.equal(image, EXPECTED), name
        assert image.is_contiguous(), name


def test_grey_images_have_three_equal_channels() -> None:
    grey = PIXELS[..., 0]
    for form in (
        grey,
        grey[..., None],
        torch.from_numpy(grey),
        torch.from_numpy(grey)[None],
        Image.fromarray(grey),
    ):
        assert torch.equal(to_image(form), torch.from_numpy(grey).expand(3, 5, 7))


def test_the_channels_of_cv2_are_turned() -> None:
    assert torch.equal(to_image(PIXELS[..., ::-1], channel_order="bgr"), EXPECTED)
    assert torch.equal(to_image(EXPECTED.flip(0), channel_order="bgr"), EXPECTED)
    assert torch.equal(to_image(Image.fromarray(PIXELS), channel_order="bgr"), EXPECTED)  # says its own
    with pytest.raises(ValueError, match="expected 'rgb' or 'bgr'"):
        to_image(PIXELS, channel_order="gbr")  # type: ignore[arg-type]


def test_a_url_is_fetched(server: str) -> None:
    assert torch.equal(to_image(f"{server}/a%20b.png"), EXPECTED)
    with pytest.raises(ConnectionError, match=r"/no\.png: could not be fetched .*404"):
        to_image(f"{server}/no.png")


def test_a_url_is_not_fetched_offline_nor_without_end(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LARGEST_OBJECT", 10)
    with pytest.raises(ConnectionError, match="more than 10 bytes"):
        to_image(f"{server}/a%20b.png")
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="POINTREND_OFFLINE is set"):
        to_image(f"{server}/a%20b.png")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "expected a path, a URL, the bytes"),
        (7, "expected a path, a URL, the bytes"),
        ([PIXELS], "got list"),
        (PIXELS.astype(np.float32), r"expected uint8 values 0..255, got float32; .*astype\(np.uint8\)"),
        (EXPECTED.float(), r"expected uint8 values 0..255, got torch.float32; .*to\(torch.uint8\)"),
        (PIXELS.transpose(2, 0, 1), r"use image.transpose\(1, 2, 0\)"),
        (EXPECTED.permute(1, 2, 0), r"use image.permute\(2, 0, 1\)"),
        (np.zeros((2, 5, 7, 3), np.uint8), "several images as a list"),
        (torch.zeros(2, 3, 5, 7, dtype=torch.uint8), "several images as a list"),
        (np.zeros((5, 7, 4), np.uint8), r"image\[..., :3\]"),
        (np.zeros((0, 7, 3), np.uint8), "at least one pixel"),
        (torch.zeros(3, 4, 0, dtype=torch.uint8), "at least one pixel"),
        (Image.new("RGB", (0, 3)), "at least one pixel"),
        (
            PIXELS.astype(np.int64),
            r"got int64; for values 0..255: image.astype\(np.uint8\); for 0..65535: \(image // 257\)",
        ),
        (io.StringIO("x"), "opened in binary mode"),
        (Image.new("La", (2, 2)), "an image of mode La, which has no way to RGB"),
        (b"no image", r"image: not a readable image \(its format is not known\)"),
        ("no such file.png", "no such file"),
        (".", "got a folder"),
        ("x" * 5000, r"^x{200}\.\.\.: no such file \(File name too long\)"),
        ("~nobody of this name/a.png", "no such file"),
        ("data:image/png;base64,iVBO" + "R" * 5000, r"^data:.{195}\.\.\.: expected a file, .*of kind 'data'"),
        ("ftp://x.org/a.png", "ftp://x.org/a.png: expected a file, .*got an address of kind 'ftp'"),
        (Path("https://x.org/a.png"), "got a Path of kind 'https'"),
        (torch.zeros(3, 5, 7, dtype=torch.uint8, device="meta"), "expected a dense tensor with values"),
        (torch.zeros(3, 5, 7, dtype=torch.uint8).to_sparse(), "expected a dense tensor with values"),
    ],
)
def test_what_is_no_image_is_refused_and_says_what_is_expected(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_image(image)


def test_bytes_of_a_turned_photograph_are_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", exif=exif)
    assert to_image(file.getvalue()).shape == (3, 7, 5)
