"""Text as it is read everywhere, and the one rule of what is punctuation.

Files are UTF-8, with or without a byte order mark, or UTF-16 with one, with either kind of line
ends, and Unicode is composed (NFC, https://unicode.org/reports/tr15/): the same letters are then
the same text.
"""

from __future__ import annotations

import codecs
import re
import stat
import unicodedata
from collections.abc import Container
from functools import cache
from os import fstat
from pathlib import Path

from asr.errors import InputError

#: Bytes read of what is no file with a size (a pipe, a device): some fifty million words.
MOST_PIPED = 1 << 28

#: Byte order marks, which no text in UTF-8 begins with.
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_APOSTROPHES = str.maketrans(dict.fromkeys("‘’‛ʼ＇′´`", "'"))
# Each begins with the character itself, and looks back over it: ten times as fast to search for.
#: What quotation marks of one stroke enclose: they stand outside words, an opening one first.
_QUOTED = re.compile(r"'(?<![\w']')(?=\w)([^']*(?:'(?<=\w')(?=\w)[^']*)*)'(?<=\S')(?![\w'])")
_GOES = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_PARTS = re.compile(r"\.\.+|''+")
_STAYS = re.compile(
    r"(<(?<![\w>]<)[\w-]+>(?![\w<])|'(?:(?<=\w')|(?=\w))"
    r"|\.(?<=\d\.)(?=\d)|[%‰°](?<=\d.)|[$€£¥¢](?=\d))"
)
_GONE = ".\u00ad\u200b\u2060\ufeff"


def nfc(text: str) -> str:
    """Text with its Unicode composed; as quick as a look at it where it is so already."""
    return unicodedata.normalize("NFC", text)


def read_text(path: Path, as_is: bool = False) -> str:
    """The text of a file or pipe; its lines end with ``\\n``.

    as_is: without `nfc`, where the text names files, which are called as they are called.

    Raises:
        InputError: it cannot be read, is neither UTF-8 nor UTF-16, or is a pipe without end.
    """
    return decoded(path, read_bytes(path), as_is)


def read_bytes(path: Path) -> bytes:
    """What a file holds, or a pipe of up to `MOST_PIPED` bytes.

    Raises:
        InputError: it cannot be read, or there is more.
    """
    try:
        with path.open("rb") as handle:
            if stat.S_ISREG(fstat(handle.fileno()).st_mode):
                return handle.read()
            data = handle.read(MOST_PIPED + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MOST_PIPED:
        raise InputError(
            f"{path}: is not a file, and gives more than {MOST_PIPED >> 20} MB; write what it "
            "gives to a file first"
        )
    return data


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The keys in the lines of a file.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    if path is None:
        return ()
    keys = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not keys:
        raise InputError(f"--key-file {path}: holds no key")
    return keys


def decoded(path: Path | str, data: bytes, as_is: bool = False) -> str:
    """`read_text` of what was read already; ``path`` names it in messages.

    Raises:
        InputError: it is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: is not UTF-8 text (byte {error.start} of the file); convert it first"
        ) from error
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if as_is else nfc(text)


def plain_words(sentence: str) -> str:
    """A sentence as speech has it: in lower case, `without_punctuation`, single spaces.

    >>> plain_words('“Yes,” he said -- at 5 a.m. -- ‘it’s a drop-off: $1,203.50!’')
    "yes he said at 5 am it's a drop off $1203.50"
    """
    return " ".join(without_punctuation(nfc(sentence).lower()).split())


def plain_text(text: str, known: Container[str] = ()) -> str:
    """A transcript as training and tuning take it: its words as `plain_words`, but for ``known``.

    known: words that a lexicon writes so, in whatever case.

    >>> plain_text("Dr. Smith lives in Paris.", {"Smith", "Paris."})
    'dr Smith lives in Paris.'
    """
    pieces = (word if word in known else plain_words(word) for word in text.split())
    return " ".join(filter(None, pieces))


def without_punctuation(text: str, kept: str = "") -> str:
    """Text without punctuation and symbols, in which words stand apart as before or further.

    Apostrophes, typographic ones too, become ``'`` and stay at and in words; quotation marks go.
    Full stops vanish ("a.m." is am), and part words where they are two or more. Of figures stay the
    decimal point and a currency or % beside them, while commas between thousands vanish. Marks of
    full width (Chinese, Japanese), soft hyphens and spaces of no width vanish. All others part
    words: hyphens, dashes, slashes, colons, quotation marks. A word in angle brackets (``<unk>``)
    stays, and so do the characters ``kept``.
    """
    if not text.isascii():
        text = text.translate(_APOSTROPHES)
    if "'" in text:
        text = _QUOTED.sub(r" \1 ", text)
    pieces = _STAYS.split(_PARTS.sub(" ", _GOES.sub("", text)))
    table = _table(kept)
    pieces[::2] = [piece.translate(table) for piece in pieces[::2]]
    return "".join(pieces)


@cache
def _table(kept: str) -> dict[int, str]:
    class Table(dict[int, str]):
        def __missing__(self, code: int) -> str:
            character = chr(code)
            is_mark = unicodedata.category(character)[0] in "PS" and character not in kept
            is_wide = unicodedata.east_asian_width(character) in "FW"
            self[code] = ("" if is_wide else " ") if is_mark else character
            return self[code]

    return Table(dict.fromkeys(map(ord, _GONE), ""))


def counted(n: int, noun: str) -> str:
    """``1 word``, ``2 words``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
