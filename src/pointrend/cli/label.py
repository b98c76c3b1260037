"""`pointrend label`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from pointrend.cli.app import listening, require_server


@dataclass(frozen=True)
class Label:
    """Label points in the browser: boxes and ten yes-or-no questions each, instead of masks.

    Boxes come from a COCO file, from a model, or are drawn on the page. Random points in each box are shown one after
    the other: Y or N, the arrow keys, or a tap. The file is written after each object; the same command goes on where
    it stopped. `pointrend train --data DIR:points` trains on it.
    """

    images: Positional[Path]
    """Folder of images, such as DIR/train."""
    annotations: Path | None = None
    """COCO file with boxes; masks in it are not used."""
    model: str | None = None
    """Checkpoint, or name that `pointrend zoo` lists, of an instance model that proposes boxes."""
    min_score: float = 0.5
    """Least score of a proposed box."""
    classes: tuple[str, ...] = ()
    """Categories of boxes that are drawn, where neither a file nor a model has any."""
    out: Path | None = None
    """COCO file to write; DIR/instances_train_n10_v1_without_masks.json for the images DIR/train if not given."""
    points: int = 10
    """Points of each object."""
    seed: int = 12345
    """Of the points."""
    host: str = "127.0.0.1"
    """Address to listen at: 127.0.0.1 is reached from this computer only, 0.0.0.0 from everywhere."""
    port: int = 7861
    """To listen at; 0 takes a free one."""
    device: str | None = None
    """Of the model: cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        require_server()
        if not 0 <= self.port < 65536:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        from pointrend.app.label_file import boxes_to_label
        from pointrend.app.label_server import build_label_app
        from pointrend.app.label_session import LabelSession
        from pointrend.app.server import serve

        if self.model is None and (self.device is not None or self.min_score != Label.min_score):
            raise ValueError("device and min_score: are of --model; name one, or leave them out")
        if self.classes and (self.model is not None or self.annotations is not None):
            raise ValueError("classes: come from --annotations or --model where one is given; leave them out")
        if not self.images.is_dir():
            raise ValueError(f"{self.images}: no such folder of images")
        out = self.out or self.images.parent / (
            f"instances_{self.images.name}_n{self.points}_v1_without_masks.json"
        )
        content = {}
        if self.annotations is not None or not out.exists():
            propose = None if self.model is None else self._proposals
            content = boxes_to_label(self.images, self.annotations, classes=self.classes, propose=propose)
        session = LabelSession(
            self.images,
            out,
            content,
            draw=self.annotations is None and self.model is None,
            points=self.points,
            seed=self.seed,
        )
        port, address, hosts = listening(self.host, self.port)
        app = build_label_app(session, hosts=hosts)
        print(f"points go to {out}")
        print(f"Label at {address}  (Ctrl-C ends it)", flush=True)
        serve(app, self.host, port)
        return 0

    def _proposals(self, paths: list[Path]) -> Any:
        """(class names, results of the images) of the model."""
        from pointrend.cli.console import counting, load_model
        from pointrend.predict import Predictor

        assert self.model is not None
        model = load_model(self.model)
        if model.task != "instance":
            raise ValueError(f"model: expected one that finds objects, got one for {model.task} segmentation")
        predictor = Predictor(model, device=self.device, min_score=self.min_score)
        results = []
        with counting("proposing boxes", len(paths)) as progress:
            for number, path in enumerate(paths, start=1):
                results.append(predictor(path))
                progress(number, len(paths))
        return model.config.class_names, results
