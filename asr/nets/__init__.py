"""Recurrent nets: cells, stacks of them, the acoustic model and its losses."""
