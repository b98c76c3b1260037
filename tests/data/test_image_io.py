from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch.utils.data import Dataset

from pointrend.data.image_io import build_loader, image_size, read_image
from pointrend.data.label_io import read_labels
from pointrend.structures import Sample


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose pixels all differ, smooth enough for JPEG."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 50 + 100], axis=-1).astype(np.uint8)


def test_a_colour_png_is_read_exactly_as_planar_rgb(tmp_path: Path) -> None:
    Image.fromarray(ramp(5, 7)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 5, 7)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert torch.equal(image, torch.from_numpy(ramp(5, 7)).permute(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_shows_the_image_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(ramp(6, 10))
    inverse = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Pillow's Transpose values that undo each orientation
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0).numpy(), ramp(6, 10))
    assert image_size(tmp_path / "a.png") == (stored.height, stored.width)
    as_stored = read_image(tmp_path / "a.png", upright=False)
    assert np.array_equal(as_stored.permute(1, 2, 0).numpy(), np.array(stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_not_lose_the_image(tmp_path: Path) -> None:
    Image.fromarray(ramp(6, 10)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    assert read_image(tmp_path / "a.jpg").shape == (3, 6, 10)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(ramp(9, 9)).convert(mode)
    path = tmp_path / ("a.png" if mode in {"L", "1", "P"} else "a.jpg")
    image.save(path)
    expected = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(read_image(path), expected)


def test_lab_tiff_becomes_rgb(tmp_path: Path) -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    image = ImageCms.applyTransform(Image.fromarray(ramp(4, 4)), to_lab)
    assert image is not None
    image.save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").shape == (3, 4, 4)


def test_transparent_parts_lie_on_white(tmp_path: Path) -> None:
    pixels = np.dstack([np.full((1, 3, 3), 40, np.uint8), np.array([[0, 255, 51]], np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png")[:, 0].tolist() == [[255, 40, 212]] * 3
    Image.fromarray(pixels[..., 2:]).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[:, 0].tolist() == [[255, 40, 212]] * 3
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").permute(1, 2, 0).tolist()[0][0] == [255, 255, 255]


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 0, 1, 255]]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (333, 17)])
def test_odd_sizes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(ramp(*size)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (3, *size)


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(ramp(9, 9)).save(tmp_path / "bomb.png")
    for limit in (80, 30):  # Pillow itself warns above its limit and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"bomb\.png: .*81.*MAX_IMAGE_PIXELS"):
            read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(tmp_path / "bomb.png").shape == (3, 9, 9)


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ramp(64, 64)).save(buffer, format=suffix)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpeg", "png", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, keep: float) -> None:
    content = encoded(suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ValueError, match=rf"cut\.{suffix}: not a readable image"):
        read_image(path)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for path, reason in (
        (tmp_path / "a.jpg", "readable"),
        (tmp_path / "b.jpg", "no such"),
        (tmp_path, "readable"),
    ):
        with pytest.raises(ValueError, match=rf"{path.name}: .*{reason}"):
            read_image(path)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif: .*floating point"):
        read_image(tmp_path / "f.tif")


def test_the_greyscale_jpeg_of_coco_becomes_three_equal_channels(shared_data: Path) -> None:
    image = read_image(next((shared_data / "coco_mini").glob("*/000000000086.jpg")))
    assert image.shape[0] == 3
    assert torch.equal(image[0], image[2])


def test_label_numbers_are_read_from_grey_palette_and_sixteen_bit_files(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [3, 255, 7]], np.uint8)
    Image.fromarray(numbers).save(tmp_path / "l.png")
    palette = Image.fromarray(numbers)
    palette.putpalette(range(255, -1, -1))  # turns the mode into P; the indices stay
    palette.save(tmp_path / "p.png")
    Image.fromarray(numbers.astype(np.uint16) + 33000).save(tmp_path / "w.png")
    assert read_labels(tmp_path / "l.png").tolist() == numbers.tolist()
    assert read_labels(tmp_path / "p.png").tolist() == numbers.tolist()
    assert read_labels(tmp_path / "w.png").tolist() == (numbers.astype(int) + 33000).tolist()


def test_a_label_map_in_colour_is_refused(tmp_path: Path) -> None:
    Image.fromarray(ramp(3, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: .*one number per pixel.*RGB"):
        read_labels(tmp_path / "a.png")


class Noise(Dataset[Sample]):
    """Images of different sizes and of random pixels."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Sample:
        return Sample(torch.randint(255, (3, 2 + index, 4), dtype=torch.uint8), None, image_id=index)


def test_batches_keep_sizes_and_order_in_evaluation() -> None:
    batches = list(build_loader(Noise(), 2, train=False))
    assert [sample.image_id for _, _, samples in batches for sample in samples] == [0, 1, 2, 3, 4]
    assert [image.shape[1] for images, _, _ in batches for image in images] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_seed_decides_order_and_augmentation(workers: int) -> None:
    def run(seed: int) -> list[tuple[int | str, int]]:
        torch.manual_seed(seed)
        loader = build_loader(Noise(), 2, workers=workers, seed=seed)
        return [(s.image_id, int(s.image.sum())) for _, _, samples in loader for s in samples]

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert len(run(3)) == 4  # the incomplete batch is left out


def test_an_empty_dataset_and_a_batch_larger_than_the_dataset_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        build_loader([], 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower the batch size"):
        build_loader(Noise(), 6)
