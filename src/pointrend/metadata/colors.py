"""The default colour of each class: the same in label files, overlays, figures and the browser page."""

from __future__ import annotations

import colorsys

RGB = tuple[int, int, int]

# The first colours are told apart with every common colour vision (after Okabe and Ito, 2008), on grey and on dark.
_FIRST: tuple[RGB, ...] = (
    (0, 114, 200),
    (230, 150, 0),
    (0, 158, 115),
    (204, 92, 160),
    (86, 180, 233),
    (213, 84, 0),
    (240, 222, 60),
    (126, 87, 194),
)
# After them, steps of the golden ratio round the colour wheel never come back to a hue, and neighbours in the list are
# far apart.
_GOLDEN = 0.61803398875
_TONES = ((0.78, 0.94), (0.55, 0.80), (0.95, 0.72), (0.42, 0.98))  # saturation, value


def default_palette(count: int) -> tuple[RGB, ...]:
    """`count` colours, RGB in 0..255. Colour i is the same for every `count`, so a class keeps its colour."""
    return (*_FIRST, *map(_generated, range(len(_FIRST), count)))[:count]


def _generated(i: int) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb((0.58 + _GOLDEN * i) % 1.0, *_TONES[(i // 3) % len(_TONES)])
    return round(255 * red), round(255 * green), round(255 * blue)
