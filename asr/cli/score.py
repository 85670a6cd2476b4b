"""`asr score`: error rates of hypotheses against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli import app, tell
from asr.cli.options import Folding, Unit
from asr.errors import InputError
from asr.score.normalise import NORMALISATIONS, named_ways
from asr.score.read import FORMAT_RULE, FORMATS


@app.command()
def score(
    ref: Annotated[Path, typer.Argument(metavar="REF", help="What was said.")],
    hyps: Annotated[
        list[Path],
        typer.Argument(
            metavar="HYP...", help="What was recognised; by several systems for --compare."
        ),
    ],
    unit: Annotated[
        Unit, typer.Option(help="What is counted: words (WER), characters (CER), phones (PER).")
    ] = "word",
    fold: Annotated[
        Folding, typer.Option(help="Fold the phones of both sides, after TIMIT's custom.")
    ] = "none",
    silence: Annotated[
        Literal["count", "merge", "ignore"],
        typer.Option(
            help="Silence phones (sil, h#, pau) of both sides: count each, merge neighbouring "
            "ones into one, or ignore them."
        ),
    ] = "count",
    alignment: Annotated[
        Literal["edit", "nist"],
        typer.Option(
            help="edit: minimum edit distance. nist: sclite's weights, { a / b } and (optional) "
            "words, no difference of case."
        ),
    ] = "edit",
    normalise: Annotated[
        str,
        typer.Option(
            "--normalise",
            "--normalize",
            metavar="WHAT[,WHAT]",
            help=f"Make both sides alike, before they are scored: {', '.join(NORMALISATIONS)}. "
            "Contractions, numbers and spelling are English; whisper is all of Whisper's rules, "
            "for figures to set beside published ones.",
        ),
    ] = "",
    glm: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --alignment nist: rewrite both sides by the rules of NIST's global mapping "
            "file, as csrfilt does, first of all.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    errors: Annotated[
        bool, typer.Option("--errors", help="Then show every wrong utterance, aligned.")
    ] = False,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Give 95 % bootstrap intervals of the rate.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Is a HYP better than one before it? Give the difference of each two with its "
            "intervals, and significance tests.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write a summary by speaker, lists of errors and aligned pairs to this folder, "
            "as text, JSON and CSV.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT[,FORMAT]",
            help=f"Format of both files, or of REF and HYP: {', '.join(FORMATS)}. {FORMAT_RULE}",
        ),
    ] = None,
) -> None:
    """Print the error rate of HYP against REF over the whole corpus.

    Most files hold one utterance a line: txt is plain text, matched by line; trn is 'words (id)';
    jsonl has objects with id (or audio_filepath), text and perhaps phones, manifests and what
    asr transcribe writes among them; kaldi is 'id words'; csv has a header with id (or path) and
    text; tsv has one, too, or is 'path TAB words', the id being the file's name without its
    extension. An stm has the references of segments of recordings and needs a ctm, time-marked
    words; a ctm alone is an utterance for each file. timit is a folder of .PHN, .WRD and .TXT
    files. A hypothesis that is missing is scored as empty.
    """
    import gc
    import json
    import shutil

    from asr.score.systems import Choices, compared, one, score_files, write

    if compare != (len(hyps) > 1):
        raise InputError("--compare and a second HYP go together: asr score REF HYP HYP --compare")
    if compare and (errors or intervals):
        raise InputError("--compare has its own output, without --errors and --intervals")
    # A million words make many objects, and no cycles among them.
    gc.disable()
    choices = Choices(unit, alignment, fold, silence, named_ways(normalise))
    systems = score_files(ref, hyps, choices, tell, glm, format)
    if compare:
        text, document = compared(systems)
    else:
        width = shutil.get_terminal_size().columns if errors else None
        text, document = one(systems[0], width, intervals)
    if report:
        write(report, systems, (text, document) if compare else None)
    print(json.dumps(document, ensure_ascii=False, indent=2) if as_json else text)
