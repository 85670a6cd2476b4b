"""The one exception that users meet: one line of what, where, expected, found, what to do."""

from __future__ import annotations


class InputError(Exception):
    """Input the program cannot work with; the command line prints it without a traceback."""
