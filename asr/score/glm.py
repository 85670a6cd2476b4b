"""Global mapping files (GLM), NIST's rules that rewrite transcripts before they are scored.

Rules and their application as in sctk's ``csrfilt.sh`` and ``rfilter1`` (``GLMRules.txt``): a line
``A => B / [C] __ [D]`` makes B of A between C and D. From left to right, the first rule in the file
that fits at a place is applied there, to the text as it was. Square brackets or quotes may enclose
strings that begin or end with spaces.
"""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asr.errors import InputError
from asr.score.lines import Transcripts, short
from asr.system.text import read_text

#: Lines after such a comment are for files of this format, or for ref or hyp, alone.
_PART = re.compile(r';;\s+INPUT_DEPENDENT_APPLICATION\s*=\s*"([^"]*)"')
_SETTING = re.compile(r"""["']([^"']*)["']""")
_CONTEXT = re.compile(r"/(.*?)_\S*(.*)")
_TRUE = ("T", "YES", "TRUE")
# csrfilt folds no other letters.
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
#: An optional word with others behind it in the same brackets, each of which is then one.
_OPTIONAL = re.compile(r"(\(\s+[^()\s]+\s+)([^()\s]+)")
#: Characters by which rules are looked up.
_PREFIX = 3


class _Rule(NamedTuple):
    source: str
    target: str
    before: str
    after: str

    @property
    def prefix(self) -> str:
        """What a place begins with."""
        return (self.source + self.after)[:_PREFIX]


class Rules:
    """The rules of a file for one kind of transcripts."""

    def __init__(self, path: Path, rows: Sequence[tuple[int, str]]) -> None:
        self.copies, self.sensitive = True, True
        rules = [rule for number, row in rows if (rule := self._read(row, f"{path}:{number}"))]
        self._rules: dict[str, list[tuple[int, _Rule]]] = defaultdict(list)
        for order, rule in enumerate(rules):
            self._rules[rule.prefix].append((order, rule))
        self._places = re.compile(_places(rules))

    def __call__(self, text: str) -> str:
        """Rewrite a transcript, which comes out in upper case (A to Z)."""
        text = text.translate(_UPPER).replace("(", "( ").replace(")", " )")
        text = f"  {' '.join(text.split())}  "
        made = []
        at = 0
        while place := self._places.search(text, at):
            copied, at = at, place.start()
            rule = self._fitting(text, at)
            after = at + (len(rule.source) if rule else 1)
            if self.copies:
                made.append(text[copied : at if rule else after])
            if rule:
                made.append(rule.target)
            at = after
        if self.copies:
            made.append(text[at:])
        text = "".join(made)
        while _OPTIONAL.search(text):
            text = _OPTIONAL.sub(r"\1) ( \2", text)
        return re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", " ".join(text.split())))

    def _fitting(self, text: str, at: int) -> _Rule | None:
        """The first rule in the file that fits."""
        found: list[tuple[int, _Rule]] = []
        for n in range(1, _PREFIX + 1):
            found += self._rules.get(text[at : at + n], ())
        for _, rule in sorted(found):
            fits = text.startswith(rule.source + rule.after, at)
            if fits and text.endswith(rule.before, 0, at):
                return rule
        return None

    def _read(self, row: str, where: str) -> _Rule | None:
        """A rule, or None for a line that begins with * and sets how all are applied."""
        if row.startswith("*"):
            value = _SETTING.search(row)
            if value is None:
                raise InputError(f"{where}: expected a value in quotes, found {short(row)}")
            is_true = value[1].upper() in _TRUE
            if "COPY_NO_HIT" in row.upper():
                self.copies = is_true
            elif "CASE_SENSITIVE" in row.upper():
                self.sensitive = is_true
            elif "FORMAT" in row.upper() and value[1] != "NIST1":
                raise InputError(f"{where}: expected format NIST1, found {value[1]!r}")
            return None
        source, arrow, rest = row.partition("=>")
        target, before, after = rest, "", ""
        slash = rest.rfind("/")
        # In square brackets or among alternatives a slash is text.
        is_enclosed = rest.find("]", slash) < rest.find("[", slash)
        is_enclosed |= rest.count("{", 0, slash) > rest.count("}", 0, slash)
        if slash >= 0 and not is_enclosed:
            target = rest[:slash]
            context = _CONTEXT.fullmatch(rest, slash)
            before, after = context.groups() if context else ("", "")
            arrow = arrow if context else ""
        strings = [_literal(s) for s in (source, target, before, after)]
        if not arrow or not strings[0]:
            raise InputError(
                f"{where}: expected 'A => B' or 'A => B / [C] __ [D]', found {short(row)}"
            )
        if not self.sensitive:
            strings = [s.translate(_UPPER) if i != 1 else s for i, s in enumerate(strings)]
        return _Rule(*strings)


class Glm:
    """A file of rules, of which some may be for references or for hypotheses alone."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read, or holds what is no rule.
        """
        self.path = path
        self._rows = read_text(path).split("\n")
        # What the first line begins with begins all comments.
        self._comment = (self._rows[0].split() or [""])[0] or ";;"
        for side in ("ref", "hyp"):
            self.rules("trn", side)

    def rules(self, format: str, side: str) -> Rules:
        """The rules for a format (stm, ctm, trn; all others are txt) on side ref or hyp."""
        kinds = (format if format in ("stm", "ctm", "trn") else "txt", side)
        rows, applies = [], True
        for number, row in enumerate(self._rows, 1):
            if found := _PART.match(row):
                try:
                    applies = any(re.search(found[1].lower(), kind) for kind in kinds)
                except re.error as error:
                    raise InputError(
                        f"{self.path}:{number}: {found[1]!r} is no pattern ({error})"
                    ) from error
            row = row.partition(self._comment)[0]
            if applies and row.strip():
                rows.append((number, row))
        return Rules(self.path, rows)

    def applied(self, transcripts: Transcripts, side: str) -> Transcripts:
        """The transcripts rewritten; in a ctm each word is by itself."""
        rules = self.rules(transcripts.format, side)
        lines = {}
        for utterance, line in transcripts.lines.items():
            text, words = line.text, line.words
            if words is not None:
                words = tuple((middle_s, rules(word)) for middle_s, word in words)
                text = " ".join(word for _, word in words)
            elif text is not None:
                text = rules(text)
            lines[utterance] = line._replace(text=text, words=words)
        return Transcripts(transcripts.path, transcripts.format, lines)


def _literal(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] + text[-1] in ("[]", '""'):
        return text[1:-1]
    # One that is not closed, of which NIST's own files have one, encloses the rest.
    return text if "]" in text else text.removeprefix("[")


def _places(rules: Sequence[_Rule]) -> str:
    """A pattern that finds where a rule may fit: by what its source begins with and follows."""
    groups: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for rule in rules:
        groups[rule.before[-1:]][rule.prefix[0]].add(rule.prefix[1:])
    patterns = []
    for before, firsts in groups.items():
        starts = [
            f"{re.escape(first)}(?:{'|'.join(map(re.escape, sorted(rests)))})"
            for first, rests in firsts.items()
        ]
        behind = f"(?<={re.escape(before)})" if before else ""
        patterns.append(f"{behind}(?:{'|'.join(starts)})")
    # Without rules, none.
    return "|".join(patterns) or r"(?!)"
