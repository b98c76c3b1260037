"""Several processes give the same result as one, to the last digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pointrend.distributed import Shard

WORK = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from types import SimpleNamespace
from pointrend.evaluation.report import to_json
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.evaluation.prediction_store import SavedDetections
from pointrend.distributed import Shard, shutdown
from pointrend.run_folder import RunFolder
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import *

rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
if count > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
NAMES = ("a", "b", "c")

def make_image(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 3, (3, 30, 40 + number), dtype=torch.uint8, generator=generator)

class Painter:
    config = SimpleNamespace(class_names=NAMES)
    def predict(self, images, shift=0):
        return [SemanticResult(torch.roll(image[0], shift, 0), NAMES) for image in images]

class Finder:
    config = SimpleNamespace(class_names=NAMES)
    def predict(self, images):
        return [self.one(image) for image in images]
    def one(self, image):
        generator = torch.Generator().manual_seed(int(image.sum()))
        count = image.shape[2] % 4
        corners = torch.randint(0, 15, (count, 2), generator=generator)
        masks = torch.zeros(count, *image.shape[1:])
        for mask, (x, y) in zip(masks, corners.tolist()):
            mask[y:y + 10, x:x + 14] = 1
        boxes = torch.cat([corners, corners + torch.tensor([14, 10])], 1).float()
        scores = torch.randint(1, 4, (count,), generator=generator) / 3  # with ties
        labels = torch.randint(0, 3, (count,), generator=generator)
        return InstanceResult(boxes, labels, scores, InstanceMasks.from_dense(masks), NAMES)

class Streets(list, Dataset):
    # As Cityscapes has them
    task, category_ids, class_names, image_ids = "instance", (24, 25, 26), NAMES, range(5)
    def instance_ids(self, index):
        target = self[index].target
        ids = torch.zeros(target.masks.image_size, dtype=torch.int32)
        for number, mask in enumerate(target.masks.dense()):
            ids[mask != 0] = (24 + int(target.labels[number])) * 1000 + number
        return ids

semantic = [Sample(make_image(n), SemanticTarget(make_image(n)[1]), n) for n in range(5)]
instances = Streets()
for n in range(5):
    found = Finder().one(make_image(n))
    masks = InstanceMasks([w[:, 2:] for w in found.masks.windows], found.masks.offsets, found.masks.image_size)
    target = InstanceTarget(found.boxes, (found.labels + (n == 3)) % 3, masks, found.scores < 0)
    instances.append(Sample(make_image(n), target, n))
shard, rows = Shard.current(), []
for size in (5, 2):  # shared by three: two, two, one; one, one, none
    rows += evaluate_semantic(Painter(), semantic[:size], {"as is": {}, "moved": {"shift": 1}}, widths=(1, 2))
    store = SavedDetections(RunFolder(folder / f"out{size}", shard=shard))
    some = Streets(instances[:size])
    rows += evaluate_instances(Finder(), some, stores={"model": store}, size_edges=(0, 8, 64))
    rows += evaluate_instances(Finder(), some, metrics=("cityscapes",))
if count > 1:
    dist.barrier()
found = json.loads(to_json(rows))
for row in found:
    row.pop("seconds")
(folder / f"scores{rank}.json").write_text(json.dumps(found))
shutdown()
"""


def work(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(rank), str(count), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [(folder / f"scores{rank}.json").read_text() for rank in range(count)]


def test_three_processes_score_as_one_even_where_one_has_no_image(tmp_path: Path) -> None:
    [alone] = work(tmp_path / "alone", 1)
    together = work(tmp_path / "together", 3)
    assert together == [alone] * 3
    rows = json.loads(alone)
    assert 0 < rows[2]["numbers"]["mask AP"] < 1
    assert 0 < rows[3]["numbers"]["Cityscapes AP"] < 1
    assert rows[1]["numbers"]["mIoU"] < rows[0]["numbers"]["mIoU"]
    assert [row["images"] for row in rows] == [5] * 4 + [2] * 4
    for size in (5, 2):
        files = [tmp_path / name / f"out{size}" / "predictions.json" for name in ("alone", "together")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(tmp_path.glob("*/out/*.jsonl"))


def test_every_image_belongs_to_one_process() -> None:
    shares = [Shard(index, 3).images(8) for index in range(3)]
    assert sorted(index for share in shares for index in share) == list(range(8))
    assert Shard().gather("mine") == ["mine"]
    with pytest.raises(ValueError, match="index from 0 to 1, got 2"):
        Shard(2, 2)
