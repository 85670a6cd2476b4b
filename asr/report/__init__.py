"""Pictures of one utterance, and the HTML report of a run."""
