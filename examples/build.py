"""Write the notebooks: run each script and keep what it shows.

    python examples/build.py                # all of them
    python examples/build.py 2_points.py

The scripts are what is edited; `N_name.ipynb` is made from them. Needs jupytext, nbclient and ipykernel.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
LARGEST = 270_000  # bytes of a notebook's images together
WIDTHS = (1000, 900, 800, 720, 640, 580, 520, 460)  # pixels, tried in this order


def execute(script: Path) -> Any:
    """The script as a notebook with its outputs. Raises nbclient's CellExecutionError where a cell fails."""
    notebook = jupytext.read(script)
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    return notebook


def tidy(notebook: Any) -> Any:
    """Without what differs from run to run: times, progress bars, random ids. Images are as wide as fits."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    shown: list[tuple[Any, str]] = []
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type != "code":
            continue
        # Warnings, and what names the folders of this machine.
        cell.outputs = [
            output
            for output in cell.outputs
            if output.get("name") != "stderr" and "site-packages" not in str(output.get("data", ""))
        ]
        shown += [(out, out.data["image/png"]) for out in cell.outputs if "image/png" in out.get("data", {})]
    for width in WIDTHS:
        images = [smaller(png, width) for _, png in shown]
        if sum(len(data) for image in images for data in image.values()) < LARGEST:
            break
    for (output, _), image in zip(shown, images, strict=True):
        output.data, output.metadata = image | {"text/plain": "an image"}, {}
    return notebook


def smaller(png: str, width: int) -> dict[str, str]:
    """A PNG in base64 as it is, or as JPEG at most so many pixels wide, whichever has fewer bytes."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    exact, photo = io.BytesIO(), io.BytesIO()
    image.save(exact, format="PNG", optimize=True)
    if image.width > width:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    image.save(photo, format="JPEG", quality=80, optimize=True)
    kind, file = ("png", exact) if exact.tell() < photo.tell() else ("jpeg", photo)
    return {f"image/{kind}": base64.b64encode(file.getvalue()).decode()}


def main() -> None:
    """Build the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", type=Path)
    named = parser.parse_args().scripts
    for script in [FOLDER / path.name for path in named] or sorted(FOLDER.glob("[0-9]_*.py")):
        notebook = tidy(execute(script))
        nbformat.write(notebook, script.with_suffix(".ipynb"))
        print(
            f"{script.with_suffix('.ipynb').name}: {script.with_suffix('.ipynb').stat().st_size / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
