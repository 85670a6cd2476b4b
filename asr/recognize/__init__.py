"""A model at work: transcribe, align, evaluate, tune."""
