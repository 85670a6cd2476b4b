"""The LSTM over the few frames of one stream: torch spends half of such a step on its own calls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr.system.jit import compiled, summing

#: Up to 9, where tanh(x) has come to 1 in float32, it is to 3e-7 x times a polynomial of x^2 over
#: another one (Eigen's ``generic_fast_tanh_float``), P and Q by the powers of x.
END = np.float32(9.0)
P1, P3 = np.float32(4.89352455891786e-03), np.float32(6.37261928875436e-04)
P5, P7 = np.float32(1.48572235717979e-05), np.float32(5.12229709037114e-08)
P9, P11 = np.float32(-8.60467152213735e-11), np.float32(2.00018790482477e-13)
P13 = np.float32(-2.76076847742355e-16)
Q0, Q2 = np.float32(4.89352518554385e-03), np.float32(2.26843463243900e-03)
Q4, Q6 = np.float32(1.18534705686654e-04), np.float32(1.19825839466702e-06)
HALF = np.float32(0.5)


@compiled
def tanh(x: np.float32) -> np.float32:
    """tanh(x), which the loop around it computes for many numbers at once."""
    x = min(max(x, -END), END)
    y = x * x
    over = ((((P13 * y + P11) * y + P9) * y + P7) * y + P5) * y
    under = ((Q6 * y + Q4) * y + Q2) * y + Q0
    found: np.float32 = x * ((over + P3) * y + P1) / under
    return found


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """The logistic sigmoid."""
    found: np.float32 = HALF + HALF * tanh(HALF * x)
    return found


@summing
def lstm(
    projected: NDArray[np.float32],
    weights: NDArray[np.float32],
    h: NDArray[np.float32],
    c: NDArray[np.float32],
    outputs: NDArray[np.float32],
) -> None:
    """Of W x + b (T, 4 H) and U (4 H, H) the outputs (T, H); the state (H,) each goes on."""
    hidden = len(h)
    a = np.empty(4 * hidden, np.float32)
    for t in range(len(projected)):
        for row in range(4 * hidden):
            total = projected[t, row]
            for column in range(hidden):
                total += weights[row, column] * h[column]
            a[row] = total
        write, keep = a[:hidden], a[hidden : 2 * hidden]
        seen, show = a[2 * hidden : 3 * hidden], a[3 * hidden :]
        for unit in range(hidden):
            cell = sigmoid(keep[unit]) * c[unit] + sigmoid(write[unit]) * tanh(seen[unit])
            c[unit] = cell
            shown = sigmoid(show[unit]) * tanh(cell)
            h[unit] = shown
            outputs[t, unit] = shown
