"""`pointrend finetune`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pointrend.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingOptions):
    """Train a model further on data of your own, with the classes of that data.

    Starts from a checkpoint of ours or a name of the zoo. Weights of classes that both know by the same name are kept,
    the rest of the heads is reinitialised; what was kept is listed. The model is scored twenty times on the validation
    part; the best is OUT/best.safetensors, the last OUT/model.safetensors. Ctrl-C and SIGTERM leave a checkpoint that
    --resume goes on from.
    """

    model: Positional[str]
    """Checkpoint, or a name listed by `pointrend zoo`."""
    out: Path = Path("runs/finetune")
    """Folder for the models, the log and the scores."""

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        from pointrend.cli.console import announce, load_model

        announce(f"loading {self.model}, reading {self.data}")
        from pointrend.cli.train import finish
        from pointrend.distributed import main_process
        from pointrend.train import prepare_finetuning

        run, transfer = prepare_finetuning(load_model(self.model), self.model, self)
        if main_process():
            print(transfer, file=sys.stderr)
        return finish(run)
