"""`Model.from_pretrained(..)` and `model.save_pretrained(..)`: the two ends of a checkpoint, on the class itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from torch import nn

M = TypeVar("M", bound="Pretrained")


class Pretrained(nn.Module):
    """A model of ours that can be fetched and kept."""

    kind: ClassVar[Literal["instance", "semantic"]]
    origin: dict[str, Any]
    """Where the weights come from (name, URL, licence, scores ..), as far as their file says; empty for new ones."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = {}

    @classmethod
    def from_pretrained(
        cls: type[M],
        name_or_path: str | Path,
        *,
        weights: str | Path | None = None,
        device: str = "cpu",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> M:
        """A trained model, ready to predict; everything as in `pointrend.load`, but of this class only.

        Args:
            name_or_path: a name of the zoo (`pointrend zoo` lists them), a checkpoint file, a folder that
                :meth:`save_pretrained` wrote, or "user/name" on the Hugging Face Hub.
            weights: the published file of a zoo's name, where it has been downloaded already.
            device: where the model is wanted.
            progress: called with the bytes downloaded and those of the whole file.

        Raises:
            ValueError: another kind of model; a file that is damaged or tries to run code.
            FileNotFoundError: no such file, folder or name.
            ConnectionError: it has to be downloaded, and cannot be; says what to fetch and where to put it.
        """
        from pointrend.zoo import ZOO, load

        entry = ZOO.get(str(name_or_path))
        if entry is not None and entry.kind != cls.kind:  # known before hundreds of megabytes are fetched
            raise ValueError(_other_kind(name_or_path, cls.kind, entry.kind))
        model = load(name_or_path, weights, device=device, progress=progress)
        if not isinstance(model, cls):
            raise ValueError(_other_kind(name_or_path, cls.kind, model.kind))
        return model

    def save_pretrained(self, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write the folder that :meth:`from_pretrained` reads, ready to be uploaded to the Hugging Face Hub.

        It gets model.safetensors, complete with configuration and class names, and a README.md (model card)
        unless it has one.

        Args:
            folder: made if it is not there.
            extra: what is known about the weights, plain JSON values: data, scores, licence. :attr:`origin` if not
                given.

        Raises:
            ValueError: if a file of this name is in the way.
        """
        from pointrend.checkpoints.hub import save_folder

        save_folder(self, folder, extra=extra)


def _other_kind(name: str | Path, expected: str, found: str) -> str:
    return (
        f"{name}: expected a model for {expected} segmentation, this one is for {found} segmentation; use "
        f"{found.capitalize()}Segmenter.from_pretrained, or pointrend.load for either"
    )
