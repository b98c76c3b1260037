"""The labelling page: what its server refuses; and in a real Chromium by keyboard, and by tap on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.app.browser import CHROMIUM, NAMELESS, WAIT, fetch, served

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}


def folder(root: Path) -> Path:
    """Two images, a disc on each, and a COCO file of their boxes."""
    (root / "train").mkdir(parents=True)
    rows, columns = np.mgrid[:120, :160]
    for name, x in (("a.png", 50), ("b.png", 100)):
        disc = (rows - 60) ** 2 + (columns - x) ** 2 < 30**2
        Image.fromarray(np.where(disc[..., None], (220, 90, 60), (40, 60, 90)).astype(np.uint8)).save(
            root / "train" / name
        )
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.png", "height": 120, "width": 160}
            for n, name in ((1, "a"), (2, "b"))
        ],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [x, 30, 60, 60]} for n, x in ((1, 20), (2, 70))
        ],
    }
    (root / "boxes.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path)


def labelling(root: Path, *options: str) -> Any:
    given = options or ("--annotations", str(root / "boxes.json"), "--points", "4")
    return served(root, str(root / "train"), *given, command="label", ready="/task")


def out(root: Path, points: int = 4) -> dict[str, Any]:
    return json.loads((root / f"instances_train_n{points}_v1_without_masks.json").read_text())


def test_requests_that_are_not_understood_change_nothing(root: Path) -> None:
    with labelling(root) as server:
        assert b"<title>Label points</title>" in fetch(server, "/")[1]
        assert [fetch(server, f"/{name}")[0] for name in ("label.css", "app.css", "label.js")] == [200] * 3
        before = fetch(server, "/task")
        for path, body in (
            ("/answer", b"{}"),
            ("/answer", b'{"object": 1, "labels": [1, 0], "seconds": 1}'),
            ("/answer", b'{"object": 1, "labels": [1, 0, 1, 0], "seconds": -1}'),
            ("/answer", b'{"object": 2, "labels": [1, 0, 1, 0], "seconds": 1}'),
            ("/answer", b'{"object": 1, "labels": [1, 0, 1, 0], "seconds": NaN}'),
            ("/skip", b'{"object": 2}'),
            ("/boxes", b'{"image": 9, "box": [0, 0, 5, 5], "category": "disc"}'),
            ("/finish", b'{"image": -1}'),
        ):
            status, content = fetch(server, path, body)
            assert (status, set(json.loads(content))) == (422, {"error"}), path
        assert fetch(server, "/task") == before
        for path in (
            "/images/2",
            "/images/-1",
            "/images/%2e%2e%2fboxes.json",
            "/boxes.json",
            "/docs",
            "/openapi.json",
        ):
            assert fetch(server, path)[0] in (404, 422), path
        assert fetch(server, "/undo", b"{}", Origin="http://elsewhere.example")[0] == 403
        assert fetch(server, "/task", Host="elsewhere.example")[0] == 421
        assert fetch(server, "/images/0")[1][:3] == b"\xff\xd8\xff"
    assert not (root / "instances_train_n4_v1_without_masks.json").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("there is no chromium; POINTREND_CHROMIUM may name one")
    with playwright.sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


class Page:
    """A tab on the page; errors of its scripts and requests to elsewhere fail the test."""

    def __init__(self, browser: Any, server: str, **options: Any) -> None:
        self.context = browser.new_context(**(options or {"viewport": {"width": 1000, "height": 800}}))
        self.tab, self.server = self.context.new_page(), server
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        self.tab.on("request", lambda asked: self.hosts.add(urlsplit(asked.url).netloc))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda said: self.errors.append(said.text) if "Policy" in said.text else None)

    def __enter__(self) -> Page:
        self.tab.goto(self.server)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.context.close()
        if kind is None:
            assert self.hosts - {""} == {urlsplit(self.server).netloc}
            assert not self.errors

    def expect(self, words: str) -> None:
        """Wait until the page asks this."""
        self.tab.wait_for_function(
            "words => document.querySelector('.question').textContent.includes(words)",
            arg=words,
            timeout=WAIT,
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)


def test_by_keyboard_with_undo_and_after_a_restart(browser: Any, root: Path) -> None:
    with labelling(root) as server, Page(browser, server) as page:
        page.expect("Is the point on the disc? (1 of 4)")
        page.press("y", "ArrowLeft", "Backspace")
        page.expect("(2 of 4)")
        page.press("n", "ArrowRight", "n")
        page.expect("(1 of 4)")  # of the next object
        page.press("u")
        page.expect("(4 of 4)")  # back at the last point
        page.press("y")
        page.expect("(1 of 4)")
        assert page.tab.locator(".progress").inner_text().startswith("1 of 2 objects, ")
        assert page.tab.evaluate(NAMELESS) == []
    (record,) = out(root)["annotations"]
    assert record["point_labels"] == [1, 0, 1, 1]
    assert 0 < record["point_seconds"] < 60
    with labelling(root) as server, Page(browser, server) as page:
        page.expect("(1 of 4)")
        assert page.tab.locator(".progress").inner_text().startswith("1 of 2 objects")
        page.press("s")  # no such object
        page.expect("All objects are labelled.")
        page.press("u")
        page.expect("(1 of 4)")
        page.press("n", "n", "n", "n")
        page.expect("All objects are labelled.")
    assert [record["id"] for record in out(root)["annotations"]] == [1, 2]


@pytest.mark.parametrize("phone", [False, True], ids=["by keyboard", "by tap on a phone"])
def test_answers_of_an_unfinished_object_outlast_a_reload_and_a_restart(
    browser: Any, root: Path, phone: bool
) -> None:
    def say(page: Page, word: str) -> None:
        page.tab.locator(f"#{word}").tap() if phone else page.press(word[0])

    options = PHONE if phone else {}
    with labelling(root) as server, Page(browser, server, **options) as page:
        page.expect("(1 of 4)")
        for number, word in enumerate(("yes", "no", "undo", "no"), start=2):
            with page.tab.expect_response("**/keep"):
                say(page, word)
            page.expect(f"({number - 2 * (number > 3)} of 4)")
        page.tab.reload()
        page.expect("(3 of 4)")
    with labelling(root) as server, Page(browser, server, **options) as page:
        page.expect("(3 of 4)")
        say(page, "yes")
        say(page, "yes")
        page.expect("(1 of 4)")  # of the next object
        if phone:
            assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
    (record,) = out(root)["annotations"]
    assert record["point_labels"] == [1, 0, 1, 1]


def test_by_tap_on_a_phone_without_scrolling(browser: Any, root: Path) -> None:
    with labelling(root) as server, Page(browser, server, **PHONE) as page:
        page.expect("(1 of 4)")
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
        button = page.tab.locator("#yes").bounding_box()
        assert button["y"] + button["height"] <= 844
        for number, name in enumerate(("yes", "no", "yes", "yes"), start=1):
            page.expect(f"({number} of 4)")
            page.tab.locator(f"#{name}").tap()
        page.expect("(1 of 4)")
        page.tab.locator("#undo").tap()
        page.expect("(4 of 4)")
        page.tab.locator("#no").tap()
        page.expect("(1 of 4)")
    assert out(root)["annotations"][0]["point_labels"] == [1, 0, 1, 0]


def test_boxes_are_drawn_by_mouse_and_by_keyboard(browser: Any, root: Path) -> None:
    options = ("--classes", "disc", "ring", "--points", "2")
    with labelling(root, *options) as server, Page(browser, server) as page:
        page.expect("Draw a box round an object in a.png")
        area = page.tab.locator("canvas").bounding_box()
        scale = min(area["width"] / 160, area["height"] / 120)
        left, top = (
            area["x"] + (area["width"] - 160 * scale) / 2,
            area["y"] + (area["height"] - 120 * scale) / 2,
        )
        page.tab.mouse.move(left + 20 * scale, top + 30 * scale)
        page.tab.mouse.down()
        page.tab.mouse.move(left + 80 * scale, top + 90 * scale)
        page.tab.mouse.up()
        page.press("Enter")
        page.expect("(1 of 2)")
        page.press("y", "y")
        page.expect("in a.png")
        page.press("Escape")  # next image
        page.expect("in b.png")
        page.tab.locator("#category").select_option("ring")
        page.tab.locator("canvas").focus()
        page.press("ArrowRight", "Shift+ArrowDown", "Enter")
        page.expect("on the ring? (1 of 2)")
        page.press("n", "y")
        page.expect("in b.png")
        page.press("Escape")
        page.expect("All objects are labelled.")
    first, second = out(root, 2)["annotations"]
    assert first["bbox"] == pytest.approx([20, 30, 60, 60], abs=1)
    assert second["bbox"] == pytest.approx([43.2, 30, 80, 63.2])
    assert (first["category_id"], second["category_id"]) == (1, 2)
