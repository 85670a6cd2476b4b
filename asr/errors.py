"""The one exception that users meet: one line of what, where, expected, found, what to do."""

from __future__ import annotations

MOST_SHOWN = 900


class InputError(Exception):
    """Input the program cannot work with; the command line prints it without a traceback."""

    def __str__(self) -> str:
        """One line that any terminal can show, whatever the files and names in it hold."""
        message = super().__str__()
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        if len(line) <= MOST_SHOWN:
            return line
        return f"{line[: MOST_SHOWN // 2]} ... {line[-MOST_SHOWN // 3 :]}"
