"""Tables of names: how another project calls each tensor, and what it is called here.

A row is a pair of templates, theirs and ours. In both, `{rest}` stands for anything and other braces for a number, on
one side with an offset: ("fpn_lateral{i}.{rest}", "fpn.inner_blocks.{i-2}.0.{rest}") says that fpn_lateral5.bias is
fpn.inner_blocks.3.0.bias. Rows are read both ways, so the table that loads a checkpoint also writes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

Row = tuple[str, str]
_BRACES = re.compile(r"\{(\w+)([+-]\d+)?\}")


def translate(name: str, rows: Iterable[Row]) -> str | None:
    """The second name of the first row whose first template matches `name`, or None."""
    for source, target in rows:
        found = _pattern(source).fullmatch(name)
        if found:
            return _BRACES.sub(lambda brace: _value(brace, source, found), target)  # noqa: B023 -- called at once
    return None


def reverse(rows: Iterable[Row]) -> list[Row]:
    """The table read from the other side."""
    return [(target, source) for source, target in rows]


def current_name(name: str, aliases: Iterable[Row]) -> str:
    """An older name of theirs as it is today; aliases are applied as often as one matches."""
    while (newer := translate(name, aliases)) is not None:
        name = newer
    return name


def rename(
    tensors: Mapping[str, Tensor],
    rows: Sequence[Row],
    *,
    aliases: Sequence[Row] = (),
    ignored: Sequence[str] = (),
    source: str,
) -> dict[str, Tensor]:
    """Every tensor under our name.

    aliases: older names of theirs -> today's. ignored: templates of names that are known and not needed.

    Raises ValueError listing the names that are in no row, and names that mean the same tensor twice.
    """
    renamed: dict[str, Tensor] = {}
    unknown, twice = [], []
    for name, tensor in tensors.items():
        today = current_name(name, aliases)
        ours = translate(today, rows)
        if ours is None:
            if not any(_pattern(template).fullmatch(today) for template in ignored):
                unknown.append(f"unknown: {name} {tuple(tensor.shape)}")
        elif ours in renamed:
            twice.append(f"there twice, under an old and a new name: {name}")
        else:
            renamed[ours] = tensor
    problems = unknown + twice
    if problems:
        shown = problems if len(problems) <= 40 else [*problems[:40], f".. and {len(problems) - 40} more"]
        raise ValueError(
            f"{source}: holds tensors that this architecture has no place for:\n  " + "\n  ".join(shown)
        )
    return renamed


def count(tensors: Iterable[str], template: str) -> int:
    """How many different values the first brace of `template` takes among the names."""
    pattern = _pattern(template)
    return len({found[1] for name in tensors if (found := pattern.fullmatch(name))})


def _pattern(template: str) -> re.Pattern[str]:
    parts, position = [], 0
    for brace in _BRACES.finditer(template):
        parts.append(re.escape(template[position : brace.start()]))
        parts.append(f"(?P<{brace[1]}>{'.+' if brace[1] == 'rest' else '[0-9]{1,4}'})")
        position = brace.end()
    return re.compile("".join(parts) + re.escape(template[position:]))


def _value(brace: re.Match[str], source: str, found: re.Match[str]) -> str:
    """What stands in a target's brace: the number found at the source, moved by the difference of the
    offsets.
    """
    name = brace[1]
    if name == "rest":
        return found[name]
    offsets = {b[1]: int(b[2] or 0) for b in _BRACES.finditer(source)}
    return str(int(found[name]) - offsets[name] + int(brace[2] or 0))
