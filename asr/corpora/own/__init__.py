"""Corpora of one's own: folders of recordings with text beside them, and tables."""
