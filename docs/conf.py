"""The documentation site: `make docs` writes it to docs/_build/html. It asks no other host for anything."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import pointrend

project = "PointRend"
author = "The PointRend package authors"
copyright = "The PointRend package authors, Apache-2.0"
version = release = pointrend.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "images/README.md"]
myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "PointRend"
html_copy_source = False
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_use_index = html_domain_indices = False  # the search finds names, too
smartquotes_action = "qe"  # quotes and ellipses; "--data" is an option, not a dash
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}

html_math_renderer = "mathml"
linkcheck_ignore = [r"http://localhost:.*"]
linkcheck_anchors = False
linkcheck_timeout = 20

default_role = "code"  # docstrings say `name`
nitpicky = True
# Types of other libraries: their inventories would have to be fetched.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|np|numpy|PIL|nn|Image|os|collections|typing|pathlib|Path)(\..*)?"),
    # Names that only type checkers import.
    ("py:.*", r"Figure|ndarray|DataFrame|Detections|Drawable|Coco(Mask|Detection)|Pretrained|Progress"),
    (
        "py:.*",
        r"tuple\[.*|pointrend\..*\.[A-Z]|pointrend\.(models\.base\.Model|structures\.PlacedTarget|results\.HasClassNames)",
    ),  # a nested tuple, type variables, and types without a page
]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = True


def links_to_files(app: object, docname: str, source: list[str]) -> None:
    """Links out of docs/ lead to files of the repository, which are not pages: only their text stays."""

    def keep(found: re.Match[str]) -> str:
        text, target = found.groups()
        return f"`{text}`" if target.startswith("../") or target == "images/README.md" else found.group(0)

    source[0] = re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", keep, source[0])


attributes: dict[str, list[str]] = {}


def keep_attribute(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """An attribute's docstring is plain sentences; Napoleon would take what stands before a colon for a type."""
    if what in ("attribute", "property"):
        attributes[name] = list(lines)


def restore_attribute(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    if what in ("attribute", "property"):
        lines[:] = attributes.pop(name)


def readable_defaults(
    app: object, what: str, name: str, obj: object, options: object, signature: str | None, returned: str
) -> tuple[str | None, str]:
    """ "<factory>", a dataclass's default that is made anew, is no Python: the signature would be shown unparsed."""
    return signature and signature.replace("<factory>", "..."), returned


def formula(translator: Any, node: nodes.Element) -> None:
    """Formulas as MathML: browsers draw it themselves, without a script from elsewhere."""
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def dashes(app: object, page: nodes.document) -> None:
    """Between a parameter and its description; smartquotes would turn the dashes of options too."""
    for text in list(page.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Any) -> None:
    app.connect("doctree-read", dashes)
    app.connect("source-read", links_to_files)
    app.connect("autodoc-process-signature", readable_defaults)
    app.connect("autodoc-process-docstring", keep_attribute, priority=400)
    app.connect("autodoc-process-docstring", restore_attribute, priority=600)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
