"""The page in a real Chromium: upload, slide, hover, download; bad files; keyboard; a phone; no address but its own.

Runs where FastAPI, uvicorn, playwright (`pip install playwright`, no browser of its own) and a Chromium are installed.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.app.browser import CHROMIUM, NAMELESS, WAIT, served

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium; POINTREND_CHROMIUM may name one"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("server"), "shapes-semantic") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page with its first image; errors of its scripts and requests to elsewhere fail the test."""
    context = browser.new_context(**getattr(request, "param", {"viewport": {"width": 1280, "height": 900}}))
    tab = context.new_page()
    hosts, errors = set(), []
    tab.on("request", lambda asked: hosts.add(urlsplit(asked.url).netloc))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on(
        "console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None
    )
    tab.goto(server)
    tab.wait_for_selector("#viewer.filled", timeout=WAIT)
    yield tab
    context.close()
    assert hosts - {""} == {urlsplit(server).netloc}  # "" is data: and blob:
    assert not errors


def version(page: Any) -> str:
    return str(page.locator("[data-version]").get_attribute("data-version"))


def after(page: Any, action: Any) -> None:
    """Do something and wait for the image that follows from it."""
    before = version(page)
    action()
    page.wait_for_function(
        "before => document.querySelector('[data-version]').dataset.version !== before",
        arg=before,
        timeout=WAIT,
    )


def number(page: Any, label: str) -> str:
    return str(page.locator("#facts .numbers div", has_text=label).locator("dd").first.inner_text())


def image_file(path: Path, width: int = 320, height: int = 200) -> Path:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (230, 110, 80)
    Image.fromarray(pixels).save(path)
    return path


def test_upload_slide_hover_download(page: Any, tmp_path: Path) -> None:
    chosen = image_file(tmp_path / "my image.png")
    after(page, lambda: page.set_input_files("#source input[type=file]", chosen))
    assert page.locator("#source .message").inner_text() == "my image.png"
    assert page.locator("#viewer .main").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        320,
        200,
    ]

    before = number(page, "Output"), number(page, "Cells computed")
    slider = page.locator("#resolution input")
    after(page, lambda: slider.fill("512"))
    assert number(page, "Output").startswith("512 ×")
    assert number(page, "Cells computed") != before[1]
    points = page.locator("#points input")
    share = number(page, "Cells computed")
    after(page, lambda: points.fill("2048"))
    assert float(number(page, "Cells computed").rstrip("%")) > float(share.rstrip("%"))

    box = page.locator("#viewer .stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
    assert re.fullmatch(
        r"(background|ellipse|polygon|star|ring|bar), score [01]\.\d\d",
        page.locator("#viewer .tip").inner_text(),
    )
    page.mouse.move(box["x"] - 5, box["y"])
    assert not page.locator("#viewer .tip").is_visible()

    files = {}
    for name in ("PNG", "COCO JSON", "SVG"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(files) == {"my image-labels.png", "my image-coco.json", "my image-outlines.svg"}
    assert Image.open(io.BytesIO(files["my image-labels.png"])).size == (320, 200)
    assert json.loads(files["my image-coco.json"])["images"][0]["file_name"] == "my image.png"
    assert files["my image-outlines.svg"].startswith(b"<svg")


def test_objects_have_a_slider_for_their_score(page: Any) -> None:
    assert not page.locator("#score").is_visible()
    after(page, lambda: page.locator("#model select").select_option("shapes-instance"))
    page.wait_for_selector("#score", timeout=WAIT)
    assert number(page, "Output") == "224 × 224"
    after(page, lambda: page.locator("#score input").fill("1"))
    assert page.locator("#facts .legend li").count() == 0


def test_bad_files_get_a_sentence_and_the_page_goes_on(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    claimed = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + header, b"IDAT" + zlib.compress(b"\0")):
        claimed += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "claims.png").write_bytes(claimed)
    Image.new("L", (10_000, 10_000)).save(tmp_path / "real.png")
    message = page.locator("#source .message.wrong")
    for name, words in [
        ("broken.png", "is no image"),
        ("claims.png", "100 megapixels"),
        ("real.png", "100 megapixels"),
    ]:
        page.set_input_files("#source input[type=file]", tmp_path / name)
        playwright.expect(message).to_contain_text(words, timeout=WAIT)
        page.evaluate("document.querySelector('#source .message').textContent = ''")
    after(page, lambda: page.locator("#source .examples button").nth(1).click())
    assert page.locator("#source .message").inner_text() == ""


def test_everything_can_be_done_by_keyboard(page: Any) -> None:
    page.locator("#source .zone").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    after(page, lambda: page.keyboard.press("Enter"))
    pressed = page.locator("#source .examples button").nth(1)
    assert pressed.get_attribute("aria-pressed") == "true"

    page.locator("#viewer .stage").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#viewer .reading").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.locator("#viewer .reading").inner_text() != first
    assert page.locator("#viewer .tip").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#viewer .tip").is_visible()

    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#viewer .panels button").nth(1).get_attribute("aria-pressed") == "true"

    before = number(page, "Output")
    page.locator("#resolution input").focus()
    after(page, lambda: page.keyboard.press("ArrowRight"))
    assert number(page, "Output") != before

    names = page.evaluate(NAMELESS)
    assert names == []


@pytest.mark.parametrize(
    "page",
    [{"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}],
    indirect=True,
)
def test_a_phone_shows_image_and_sliders_without_scrolling_sideways(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    stage, slider = (page.locator(name).bounding_box() for name in ("#viewer .stage", "#resolution input"))
    assert stage["width"] > 340
    assert slider["y"] + slider["height"] - stage["y"] < 844  # the image can be watched while sliding
    page.touchscreen.tap(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    assert page.locator("#viewer .reading").inner_text()
