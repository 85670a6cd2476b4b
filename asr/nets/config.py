"""What nets and their training are configured by; none of it needs PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from asr.errors import InputError
from asr.system.settings import check, setting

#: Names of the cells of `asr.nets.cells`.
CELLS = ("rnn", "lstm", "peephole", "coupled", "gru", "gru_before")
LOSSES = ("ctc", "framewise")
MOST_LAYERS, MOST_UNITS = 64, 16_384
#: Frames that a pyramid of layers may join to one.
MOST_JOINED = 1024
#: Frames of a chunk or of a look ahead.
MOST_AHEAD = 10_000
#: The length of what has not ended: beyond any audio, and far from an overflow.
ENDLESS = 1 << 40


class Latency(NamedTuple):
    """Frames of a chunk, and frames that it sees beyond its end."""

    chunk: int
    lookahead: int


@dataclass
class RecurrentConfig:
    """A stack of recurrent layers.

    The dropouts, drop_connect and weight_noise act in training alone.
    """

    cell: str = setting("lstm", "what the layers are made of", choices=CELLS)
    layers: int = setting(3, "recurrent layers", 1, MOST_LAYERS)
    hidden: int = setting(256, "units of a layer in each direction", 1, MOST_UNITS)
    units: tuple[int, ...] = setting(
        (), "widths of the layers one by one, instead of layers times hidden", 1, MOST_UNITS
    )
    bidirectional: bool = setting(True, "read the audio in both directions")
    chunk: tuple[int, ...] = setting(
        (),
        "frames of the chunks in which a stack in both directions can go along with speech (Zhang "
        "et al. 2016); of several each batch draws one, more than half of them the first, which is "
        "what is used; empty: it hears an utterance as a whole",
        1,
        MOST_AHEAD,
    )
    lookahead: tuple[int, ...] = setting(
        (), "frames that each of these chunks sees beyond its end", 0, MOST_AHEAD
    )
    future: int = setting(
        0,
        "frames after its own that an output frame sees by a row convolution (Amodei et al. 2016), "
        "where the stack goes in one direction",
        0,
        MOST_AHEAD,
    )
    conv: tuple[int, ...] = setting(
        (), "channels of the convolutions before the first layer", 1, MOST_UNITS
    )
    between: tuple[int, ...] = setting(
        (), "widths of the MLP after each recurrent layer but the last", 1, MOST_UNITS
    )
    after: tuple[int, ...] = setting((), "widths of the MLP after the last", 1, MOST_UNITS)
    subsample: tuple[int, ...] = setting(
        (),
        "join that many neighbouring frames after each layer (a pyramid, Chan et al. 2016); empty "
        "for none",
        1,
        64,
    )
    residual: bool = setting(False, "add a layer's input to its output where the widths agree")
    layer_norm: bool = setting(False, "normalise what each layer puts out (Ba et al. 2016)")
    conv_dropout: float = setting(0.2, "of what the convolutions put out", 0, below=1)
    dropout: float = setting(0.3, "of what each layer puts out", 0, below=1)
    drop_connect: float = setting(
        0.0,
        "of recurrent weights, drawn once a batch (Wan et al. 2013; Merity et al. 2018)",
        0,
        below=1,
    )
    weight_noise: float = setting(
        0.0,
        "standard deviation of Gaussian noise on the recurrent layers' weights, drawn once a batch "
        "(Graves 2011; 0.075 in Graves et al. 2013)",
        0,
        100,
    )
    forget_bias: float = setting(1.0, "what the forget gates' biases begin with", -100, 100)
    orthogonal: bool = setting(False, "recurrent weights begin orthogonal")

    def __post_init__(self) -> None:
        check(self, "model")
        if self.subsample and len(self.subsample) != len(self.widths):
            raise InputError(
                f"model.subsample={list(self.subsample)}: expected one factor for each of the "
                f"{len(self.widths)} layers"
            )
        if self.subsampling > MOST_JOINED:
            raise InputError(
                f"model.subsample={list(self.subsample)}: joins {self.subsampling} frames to one; "
                f"expected up to {MOST_JOINED}"
            )
        self._check_live()

    def _check_live(self) -> None:
        """Refuse what cannot go along with speech where it is to."""
        if len(self.chunk) != len(self.lookahead):
            raise InputError(
                f"model.chunk={list(self.chunk)}, model.lookahead={list(self.lookahead)}: expected "
                "as many of the one as of the other"
            )
        if self.chunk and not self.bidirectional:
            raise InputError(
                "model.chunk is for stacks in both directions; with model.bidirectional=false "
                "leave it empty and set model.future"
            )
        if self.future and self.bidirectional:
            raise InputError(
                "model.future is for stacks in one direction: set model.bidirectional=false, or "
                "model.chunk and model.lookahead in its place"
            )
        if self.subsampling > 1 and (self.chunk or self.future):
            raise InputError(
                f"model.subsample={list(self.subsample)}: a pyramid cannot go along with speech; "
                "leave it empty, or model.chunk and model.future"
            )

    @property
    def streams(self) -> bool:
        """Whether it can go along with speech, chunk by chunk or frame by frame."""
        return self.subsampling == 1 and (bool(self.chunk) or not self.bidirectional)

    @property
    def latencies(self) -> tuple[Latency, ...]:
        """The chunks that it is trained for and what each sees beyond its end."""
        return tuple(map(Latency, self.chunk, self.lookahead))

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer, in each direction."""
        return tuple(self.units) or (self.hidden,) * self.layers

    @property
    def subsampling(self) -> int:
        """Input frames to an output frame."""
        return math.prod(self.subsample)


@dataclass
class LossConfig:
    """What is minimised in training."""

    name: str = setting("ctc", "the criterion", choices=LOSSES)
    framewise_epochs: int = setting(
        0,
        "a CTC model starts with that many epochs of framewise training; its best epoch on dev is "
        "looked for among those after them",
        0,
        1_000_000,
    )
    framewise_weight: float = setting(
        0.0,
        "share of the framewise loss in each step of CTC: what label each frame has, blanks aside",
        0,
        below=1,
    )
    label_smoothing: float = setting(
        0.0, "share of framewise targets that is spread over all labels", 0, below=1
    )

    def __post_init__(self) -> None:
        check(self, "loss")
