"""`python -m pointrend.runtime model.onnx photo.jpg ..`: results into files, without torch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image

from pointrend.runtime import load
from pointrend.runtime.model import SemanticModel


def main() -> int:
    """NAME.png, a label map with the model's colours, or NAME.json and NAME_0.png .. of objects; 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m pointrend.runtime", description=main.__doc__)
    parser.add_argument("model", type=Path, help="a file that `pointrend export` wrote")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    chosen = parser.parse_args()
    try:
        model = load(chosen.model, threads=chosen.threads)
        chosen.out.mkdir(parents=True, exist_ok=True)
        for path in chosen.images:
            to = chosen.out / path.stem
            if isinstance(model, SemanticModel):
                image = Image.fromarray(model.predict(path))
                if model.palette:
                    image.putpalette([value for color in model.palette for value in color])
                image.save(to.with_suffix(".png"))
                continue
            found = model.predict(path)
            objects = [
                {
                    "box": box,
                    "class": model.class_names[label],
                    "score": score,
                    "mask": f"{to.name}_{number}.png",
                }
                for number, (box, label, score) in enumerate(
                    zip(*(found[name].tolist() for name in ("boxes", "labels", "scores")), strict=True)
                )
            ]
            for one, mask in zip(objects, found["masks"], strict=True):
                Image.fromarray(mask).save(chosen.out / one["mask"])
            to.with_suffix(".json").write_text(json.dumps(objects, indent=1), encoding="utf-8")
    except (ValueError, OSError, ImportError) as error:
        print(f"pointrend: {error}", file=sys.stderr)
        return 2
    print(f"{len(chosen.images)} predicted, see {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
