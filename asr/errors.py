"""The one exception that users meet: a line that says what, where, expected, found, and what to do."""

from __future__ import annotations


class InputError(Exception):
    """Input the program cannot work with. The command line prints it as one line, without a traceback."""
