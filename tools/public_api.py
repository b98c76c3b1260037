"""Print the public API, a line for each name and method with its parameters.

    python -m tools.public_api > docs/public_api.txt

`docs/public_api.txt` is what was promised. A name that is removed or renamed fails `tests/test_docs.py` until the file
and CHANGELOG.md say so.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import pointrend
import pointrend.points


def parameters(value: object) -> str:
    """The names of the parameters of something callable, without `self`; "" where there are none to be known."""
    try:
        found = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    return "(" + ", ".join(one.name for one in found if one.name not in ("self", "cls")) + ")"


def surface(module: ModuleType) -> Iterator[str]:
    """A line for every name in `__all__`, and for every public method of its classes."""
    for name in sorted(module.__all__):
        value = getattr(module, name)
        yield f"{module.__name__}.{name}{parameters(value) if callable(value) else ''}"
        if inspect.isclass(value):
            for method in sorted(vars(value)):
                own = inspect.getattr_static(value, method)
                if not method.startswith("_") and isinstance(
                    own, (staticmethod, classmethod, property, type(parameters))
                ):
                    found = getattr(value, method)
                    yield f"{module.__name__}.{name}.{method}{parameters(found) if callable(found) else ''}"


def public_api() -> list[str]:
    """All lines."""
    return [*surface(pointrend), *surface(pointrend.points)]


if __name__ == "__main__":
    print("\n".join(public_api()))
