"""Where a speaker has come to an end: the five rules of Kaldi's `online-endpoint.h`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from asr.system.settings import check, setting

#: Frames of a segment are kept until it ends, so that it must end some time.
MOST_SEGMENT_S = 3600.0


@dataclass(frozen=True)
class EndpointConfig:
    """A segment ends where one of the rules holds; the defaults are Kaldi's.

    A rule asks for so many seconds of silence at the end, and rules 2 to 4 for speech before it.
    Rules 2 and 3 ask for a relative cost, too: how much less likely, in natural logarithms, the
    best hypothesis that may end here is than the best one. It is 0 without a language model or
    lexicon. 0 seconds switch a rule off, but for the fifth. A frame is speech where the likeliest
    label that is spoken has more than ``threshold`` of what it shares with the likeliest other one.
    """

    rule1_s: float = setting(5.0, "seconds of silence without speech", 0, MOST_SEGMENT_S)
    rule2_s: float = setting(0.5, "seconds of silence after a likely end", 0, MOST_SEGMENT_S)
    rule2_cost: float = setting(2.0, "relative cost of a likely end, at most", 0)
    rule3_s: float = setting(1.0, "seconds of silence after a possible end", 0, MOST_SEGMENT_S)
    rule3_cost: float = setting(8.0, "relative cost of a possible end, at most", 0)
    rule4_s: float = setting(2.0, "seconds of silence after speech", 0, MOST_SEGMENT_S)
    rule5_s: float = setting(20.0, "seconds of a segment, at most", above=0, most=MOST_SEGMENT_S)
    carry: bool = setting(False, "let the net go on from segment to segment, not begin anew")
    threshold: float = setting(0.5, "share of a spoken label that makes a frame speech", 0, 1)

    def __post_init__(self) -> None:
        check(self, "endpoint")

    @property
    def lead(self) -> float:
        """By how much, in natural logarithms, a spoken label must be likelier than the others."""
        if self.threshold in (0, 1):
            return math.inf if self.threshold else -math.inf
        return math.log(self.threshold) - math.log1p(-self.threshold)


@dataclass
class Endpoint:
    """Watches one segment, frame by frame of ``shift_s`` seconds."""

    config: EndpointConfig
    shift_s: float
    n_frames: int = field(default=0, init=False)
    n_silent: int = field(default=0, init=False)

    def after(self, is_silent: bool) -> float:
        """Take a frame; returns the relative cost up to which the segment ends after it.

        It is ``math.inf`` where the segment ends whatever the cost, ``-math.inf`` where no rule
        holds.
        """
        self.n_frames += 1
        self.n_silent = self.n_silent + 1 if is_silent else 0
        config = self.config
        if self.is_full:
            return math.inf
        if self.is_silent:
            return math.inf if self._last(self.n_silent, config.rule1_s) else -math.inf
        rules = (
            (config.rule4_s, math.inf),
            (config.rule3_s, config.rule3_cost),
            (config.rule2_s, config.rule2_cost),
        )
        costs = (cost for seconds, cost in rules if self._last(self.n_silent, seconds))
        return max(costs, default=-math.inf)

    @property
    def is_silent(self) -> bool:
        """Whether there was no speech so far."""
        return self.n_silent == self.n_frames

    @property
    def is_full(self) -> bool:
        """Whether the segment ends because it is long, in a pause or not."""
        return self._last(self.n_frames, self.config.rule5_s)

    def _last(self, n_frames: int, seconds: float) -> bool:
        # A thousandth of a frame is rounding.
        return seconds > 0 and n_frames * self.shift_s > seconds - 1e-3 * self.shift_s
