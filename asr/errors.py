"""The one exception that users meet: one line of what, where, expected, found, what to do."""

from __future__ import annotations

import unicodedata

#: Characters of a message.
MOST_SHOWN = 900


class InputError(Exception):
    """Input the program cannot work with; the command line prints it without a traceback."""

    def __str__(self) -> str:
        line = one_line(super().__str__())
        if len(line) <= MOST_SHOWN:
            return line
        # A damaged file may hold a word of a million letters.
        return f"{line[: MOST_SHOWN // 2]} ... {line[-MOST_SHOWN // 3 :]}"


def one_line(text: str) -> str:
    """Text with its control characters and line ends escaped: file names may hold any."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
        for c in text
    )


def first_line(error: Exception) -> str:
    """What another library says of an error, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
