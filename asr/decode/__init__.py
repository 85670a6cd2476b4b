"""Decoders: log-probabilities of one utterance in, `asr.types.Hypothesis` out."""
