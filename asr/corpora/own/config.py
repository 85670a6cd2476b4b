"""How corpora of one's own are to be read: what the command line can say of a folder or a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from asr.errors import InputError
from asr.system.text import nfc

#: What sets are called elsewhere.
SETS = {
    "train": "train", "training": "train",
    "dev": "dev", "development": "dev", "valid": "dev", "validation": "dev", "val": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Own:
    """Names of what holds what; where empty, they are guessed, and the audit tells.

    tier, phones: tiers of annotations. speaker: of a folder a pattern with one group, searched in
    the path below the root, or the name of the only speaker; of a table a column. audio, text:
    columns. shares: of train, dev and test, by speaker; empty: as the names of sets say, or else
    80, 10 and 10. kept: the folder for audio that lies in a table.
    """

    tier: str = ""
    phones: str = ""
    speaker: str = ""
    audio: str = ""
    text: str = ""
    shares: tuple[float, ...] = ()
    seed: int = 0
    kept: Path | None = None


def shares_of(text: str) -> tuple[float, ...]:
    """``80,10,10``, percent of train, dev and test; the last ones may be left out.

    Raises:
        InputError: not one to three numbers that sum to 100.
    """
    if not text:
        return ()
    parts = [part.strip() for part in text.split(",")]
    numbers = [float(p) for p in parts if re.fullmatch(r"\d{1,3}(\.\d{1,9})?", p)]
    if len(numbers) != len(parts) or len(parts) > 3 or abs(sum(numbers) - 100) > 1e-6:
        raise InputError(
            f"--split {text}: expected percent of train, dev and test that sum to 100, such as "
            "80,10,10, or 100 for one set"
        )
    return tuple(number / 100 for number in numbers)


def spoken(text: str) -> str:
    """A text as manifests have it: composed, on one line, with single spaces.

    Raises:
        InputError: there is nothing in it, or what no text has.
    """
    found = " ".join(nfc(text).split())
    if not found:
        raise InputError("holds no text")
    strange = re.search(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]", found)
    if strange:
        raise InputError(f"holds a control character ({strange[0]!r}) amid {found[:40]!r}")
    return found
