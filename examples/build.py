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
WIDTH = 760  # pixels


def execute(script: Path) -> Any:
    """The script as a notebook with its outputs. Raises nbclient's CellExecutionError where a cell fails."""
    notebook = jupytext.read(script)
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    return notebook


def tidy(notebook: Any) -> Any:
    """Without what differs from run to run: times, progress on the error stream, random ids; with smaller pictures."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                output.data = smaller(data["image/png"]) | {"text/plain": "a picture"}
                output.metadata = {}
    return notebook


def smaller(png: str) -> dict[str, str]:
    """A PNG in base64 as it is, or as JPEG at most 760 pixels wide, whichever has fewer bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    exact, photo = io.BytesIO(), io.BytesIO()
    picture.save(exact, format="PNG", optimize=True)
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    picture.save(photo, format="JPEG", quality=80, optimize=True)
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
