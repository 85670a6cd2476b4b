"""Prefix beam search: over labels, over the words of a lexicon, with a recurrent language model."""
