"""`pointrend zoo`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Zoo:
    """List the published models that `--model` knows by name, with their authors' scores and the licences.

    A model is fetched when it is first used and kept in the cache folder (POINTREND_CACHE).
    """

    def run(self) -> int:
        """Print the list."""
        from pointrend.zoo import ZOO

        for entry in ZOO.values():
            scores = ", ".join(f"{name} {score:.1f}" for name, score in entry.scores)
            print(f"{entry.name}\n    {entry.kind}, {entry.backbone}, {entry.data}; published: {scores}")
            print(f"    {entry.licence}")
        return 0
