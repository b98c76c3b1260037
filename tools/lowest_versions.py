"""Print the lowest versions that pyproject.toml allows, as constraints for pip; for `make test-lowest`.

Of what the package, its browser page and its tables (parquet) need; tools of development and what else is optional come
in their newest version.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(text: str) -> list[str]:
    """A line "name==version" for each requirement of the package and of its extras "app" and "parquet"."""
    lists = re.findall(r"^(?:dependencies|app|parquet) = \[(.*?)\]", text, flags=re.DOTALL | re.MULTILINE)
    found = [f"{name}=={bound}" for one in lists for name, bound in re.findall(r'"([\w.-]+)>=([\w.]+)"', one)]
    if not found:
        raise ValueError(f"{PROJECT}: found no requirement of the form name>=version")
    return found


if __name__ == "__main__":
    print("\n".join(lowest(PROJECT.read_text(encoding="utf-8"))))
