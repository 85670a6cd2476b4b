"""Pictures of an utterance, of an epoch, and of what a net remembers."""
