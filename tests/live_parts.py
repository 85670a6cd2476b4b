"""A stand-in for the net of a live model: log-probabilities that are stored come as audio does."""

import numpy as np
from torch import nn

from asr.audio.features import FeatureConfig
from asr.labels import LabelConfig, Labels
from asr.model.bundle import Bundle
from asr.nets.config import RecurrentConfig

RATE = 16_000
#: Samples to a frame of 30 ms.
STEP = 480


class Stored:
    """Gives stored frames (T, V) by chunks, when so much audio has come; at the end the rest."""

    latency_s = 0.12

    def __init__(self, log_probs, chunk=4, rate=RATE):
        self.log_probs, self.chunk, self.rate = log_probs, chunk, rate
        self.n_samples = self.n_taken = 0
        self.finished = False

    def accept(self, samples, rate):
        assert rate == self.rate
        self.n_samples += len(samples)

    def finish(self):
        self.finished = True

    def renew(self):
        pass

    def settle(self, was_speech):
        pass

    def computed(self):
        step = STEP * self.rate // RATE
        n = self.n_samples // step // self.chunk * self.chunk
        if self.finished:
            n = -(-self.n_samples // step)
        frames = self.log_probs[self.n_taken : n]
        self.n_taken += len(frames)
        return frames


def live_bundle(labels: Labels) -> Bundle:
    """A model of these labels, whose net is another's business."""
    config = LabelConfig(labels.unit)
    return Bundle(FeatureConfig(), RecurrentConfig(), labels, config, "ctc", nn.Identity())


def spoken(labels: Labels, symbols: str, rng: np.random.Generator, sure: float = 6.0) -> np.ndarray:
    """Log-probabilities (T, V) in which each symbol takes a frame; ``_`` is the blank."""
    best = [labels.ids.get(s, 0) for s in symbols]
    scores = rng.standard_normal((len(best), len(labels)))
    scores[np.arange(len(best)), best] += sure
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores.astype(np.float32)
