"""Print the lowest versions that pyproject.toml allows, as constraints for pip; for `make test-lowest`.

Of what the package and its browser page need; tools of development come in their newest version.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(text: str) -> list[str]:
    """A line "name==version" for each requirement of the package and of its extra "app"."""
    lists = re.findall(r"^(?:dependencies|app) = \[(.*?)\]", text, flags=re.DOTALL | re.MULTILINE)
    found = [f"{name}=={bound}" for one in lists for name, bound in re.findall(r'"([\w.-]+)>=([\w.]+)"', one)]
    if not found:
        raise ValueError(f"{PROJECT}: found no requirement of the form name>=version")
    return found


if __name__ == "__main__":
    print("\n".join(lowest(PROJECT.read_text(encoding="utf-8"))))
