"""What visitors send is checked before it is decoded; whatever it is, the answer is an image or a sentence."""

from __future__ import annotations

import io
import math
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.app.limits import Limits
from pointrend.app.uploads import EXAMPLES, SCENE_SEED, base_name, example, read_upload, shrink
from tools.train_demo_models import TRAINING_SEED

LIMITS = Limits(megabytes=1, megapixels=0.5, long_edge=100)


def encoded(width: int, height: int, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 60)).save(buffer, kind, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images_of_every_common_kind_are_read(kind: str) -> None:
    image = read_upload(encoded(40, 30, kind), "a", LIMITS).pixels
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.uint8


def test_a_single_pixel_is_an_image() -> None:
    assert read_upload(encoded(1, 1), "a", LIMITS).pixels.flatten().tolist() == [200, 30, 60]


def test_a_phone_photograph_comes_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_upload(encoded(40, 30, "JPEG", exif=exif), "a", LIMITS).pixels.shape == (3, 40, 30)


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 200), (50, 100)), ((3, 900), (100, 1)), ((100, 20), (20, 100))]
)
def test_long_images_are_shrunk(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert read_upload(encoded(*size), "a", LIMITS).pixels.shape[1:] == expected


def test_a_small_image_stays_as_it_is() -> None:
    small = torch.zeros(3, 5, 7, dtype=torch.uint8)
    assert shrink(small, 100) is small


@pytest.mark.parametrize("size", [(1000, 501), (10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_header_alone(size: tuple[int, int]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="megapixels"):
            read_upload(png_that_claims(*size), "huge.png", LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hundred_megapixels_are_named(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ValueError, match="10000 × 10000 = 100 megapixels; the limit here is 25"):
        read_upload(png_that_claims(10_000, 10_000), "huge.png", Limits())


@pytest.mark.parametrize(
    "content",
    [
        b"no image",
        b"\x89PNG\r\n\x1a\n",
        encoded(40, 30)[:60],
        encoded(300, 300, "JPEG")[:700],
        png_that_claims(100, 100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
    ids=["text", "magic", "cut png", "cut jpeg", "no pixels", "postscript", "svg"],
)
def test_damaged_and_foreign_files_get_a_sentence(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"“holiday\.jpg” is no image") as caught:
        read_upload(content, "/home/me/holiday.jpg", LIMITS)
    assert "BytesIO" not in str(caught.value)


def test_large_and_empty_files_are_refused() -> None:
    with pytest.raises(ValueError, match="larger than 1 MB"):
        read_upload(b"\0" * (2**20 + 1), "a", LIMITS)
    with pytest.raises(ValueError, match="empty"):
        read_upload(b"", "a", LIMITS)


def test_names_are_shown_without_folders_and_control_codes() -> None:
    assert base_name("../../etc/pass\nwd") == "passwd"
    assert base_name("C:\\me\\a.png") == "a.png"
    assert base_name("") == base_name("/") == "image"
    assert len(base_name("x" * 500)) == 80


@pytest.mark.parametrize("amount", [0, math.inf, math.nan])
def test_limits_are_positive_and_finite(amount: float) -> None:
    for name in ("megabytes", "megapixels"):
        with pytest.raises(ValueError, match="positive, finite megabytes"):
            Limits(**{name: amount})


def test_examples_are_photographs_and_scenes_that_were_not_trained_on() -> None:
    assert SCENE_SEED != TRAINING_SEED
    for name in EXAMPLES:
        assert max(example(name).pixels.shape) in (612, 640, 768)
        assert np.ptp(example(name).pixels.numpy()) > 100
    with pytest.raises(ValueError, match="expected one of"):
        example("../secret")
