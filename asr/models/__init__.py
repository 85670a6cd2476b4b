"""Recurrent nets: cells, stacks of them, and the acoustic model."""
