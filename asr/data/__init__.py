"""From manifests to batches: utterances on disk, examples in memory, streams of both."""
