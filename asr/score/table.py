"""Tables of transcripts, as spreadsheets, pandas and corpora write them: CSV and TSV with a header.

The columns are found by their names, as Common Voice, Hugging Face's audio folders, DeepSpeech and
SpeechBrain have them.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.errors import InputError
from asr.score.lines import Line, short

#: Names of columns, in any case, the surest first.
IDS = ("id", "utterance_id", "utt_id", "utt", "utterance")
FILES = "audio_filepath audio path file file_name filename wav_filename wav".split()
TEXTS = "text transcript transcription sentence reference ref wrd".split()
HEARD = "pred_text hypothesis hyp prediction".split()
SEPARATORS = ",;\t"


def separator_of(rows: Sequence[str]) -> str:
    """What separates the columns, if the first row names those that are needed; else ""."""
    return next((s for s in SEPARATORS if rows and _columns(_cells(rows[0], s), False)), "")


def separator_in(text: str) -> bool:
    """Whether a separator stands amid ``text``."""
    return any(s in text.strip(SEPARATORS) for s in SEPARATORS)


def read_table(path: Path, rows: Sequence[str], hypothesis: bool) -> Iterator[tuple[str, Line]]:
    """One utterance a row: an id or else an audio file, and its text.

    Raises:
        InputError: a header without these columns, or a row that has not as many cells.
    """
    separator = separator_of(rows)
    columns = _columns(_cells(rows[0], separator), hypothesis) if separator else None
    if columns is None:
        raise InputError(
            f"{path}:1: expected a header that names a column of ids ({', '.join(IDS)}) or audio "
            f"files ({', '.join(FILES)}) and one of texts ({', '.join(TEXTS)}; of hypotheses also "
            f"{', '.join(HEARD)}), found {short(rows[0] if rows else '')}; rename the columns"
        )
    name, text, is_file, width = columns
    # Cells are texts, which may be those of hours.
    csv.field_size_limit(sys.maxsize)
    lines = (row + "\n" for row in rows)
    reader = csv.reader(lines, delimiter=separator, strict=separator != "\t")
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if reader.line_num == 1 or not any(cells):
                continue
            if len(cells) != width:
                raise InputError(f"{where}: expected {width} cells, found {len(cells)}")
            if not cells[name].strip():
                raise InputError(f"{where}: the id is empty")
            audio = Path(cells[name].strip()) if is_file else None
            # A cell in quotes may go over several lines.
            yield cells[name].strip(), Line(where, cells[text].replace("\n", " "), audio=audio)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: is not CSV ({error})") from error


def _cells(row: str, separator: str) -> list[str]:
    try:
        return [cell.strip().lower() for cell in next(csv.reader([row], delimiter=separator))]
    except (csv.Error, StopIteration):
        return []


def _columns(header: Sequence[str], hypothesis: bool) -> tuple[int, int, bool, int] | None:
    """Where ids and texts stand, whether ids are files, and how many columns there are."""
    named = next((n for n in (*IDS, *FILES) if n in header), None)
    wanted = (*HEARD, *TEXTS) if hypothesis else TEXTS
    text = next((n for n in wanted if n in header), None)
    if named is None or text is None:
        return None
    return header.index(named), header.index(text), named not in IDS, len(header)
