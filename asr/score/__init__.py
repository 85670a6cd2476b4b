"""Scoring: alignments, error rates by name and policy, transcript readers, aligned output."""
