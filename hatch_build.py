"""The long description of the package, which a package index shows: README.md.

Links in README.md are relative, and lead nowhere from an index. Where the address of the sources is known, as it is in
.github/workflows/release.yml, they are made absolute, and the address is put into the metadata:

    POINTREND_REPOSITORY=https://HOST/OWNER/NAME POINTREND_REVISION=v0.1.0 make dist
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def absolute_links(text: str, repository: str, revision: str) -> str:
    """Markdown whose relative links and images lead to the files of a repository on GitHub."""
    text = re.sub(r'(<img src=")(?!https?:)', rf"\1{repository}/raw/{revision}/", text)
    return re.sub(r"(\[[^\]]*\])\((?!https?:|#)", rf"\1({repository}/blob/{revision}/", text)


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if repository := os.environ.get("POINTREND_REPOSITORY", "").rstrip("/"):
            text = absolute_links(text, repository, os.environ.get("POINTREND_REVISION", "HEAD"))
            metadata["urls"] = {"Source": repository}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
