"""Colours that are told apart, even forty of them on white paper."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

#: More kinds of labels share colours.
MOST_COLOURS = 64
#: Lightness (CIELAB) of what is neither lost on white nor black.
DARKEST, LIGHTEST = 25.0, 72.0
#: sRGB of white, black and the grey of blanks, which no colour may be like.
TAKEN = [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.9, 0.9, 0.9)]


@cache
def distinct_colours() -> tuple[tuple[float, float, float], ...]:
    """`MOST_COLOURS` sRGB colours, the first ones the farthest apart.

    Each is the one in a grid that is farthest in CIELAB from all before it (Glasbey et al. 2007).
    """
    grid = np.array(list(product(np.linspace(0, 1, 18), repeat=3)))
    lab = cielab(grid)
    fit = (lab[:, 0] >= DARKEST) & (lab[:, 0] <= LIGHTEST)
    grid, lab = grid[fit], lab[fit]
    nearest = np.linalg.norm(lab[:, None] - cielab(np.array(TAKEN)), axis=2).min(axis=1)
    chosen = []
    for _ in range(MOST_COLOURS):
        best = int(nearest.argmax())
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return tuple((r, g, b) for r, g, b in grid[chosen].tolist())


def cielab(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """SRGB (N, 3) in [0, 1] -> CIELAB (N, 3) for D65 (IEC 61966-2-1, CIE 15)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
