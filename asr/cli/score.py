"""`asr score`: error rates of hypotheses against references."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app
from asr.errors import InputError
from asr.score.lines import Matched, Transcripts
from asr.score.normalise import NORMALISATIONS, named_ways
from asr.score.read import FORMAT_RULE, FORMATS

if TYPE_CHECKING:
    from asr.score.alignment import Alignments


class Unit(StrEnum):
    WORD = "word"
    CHAR = "char"
    PHONE = "phone"


class Folding(StrEnum):
    NONE = "none"
    TIMIT48 = "timit48"
    TIMIT39 = "timit39"
    CMU40 = "cmu40"


class Silence(StrEnum):
    COUNT = "count"
    MERGE = "merge"
    IGNORE = "ignore"


class AlignmentName(StrEnum):
    EDIT = "edit"
    NIST = "nist"


@app.command()
def score(
    ref: Annotated[Path, typer.Argument(metavar="REF", help="What was said.")],
    hyp: Annotated[Path, typer.Argument(metavar="HYP", help="What was recognised.")],
    hyp_b: Annotated[
        Path | None,
        typer.Argument(metavar="HYP_B", help="What another system recognised, for --compare."),
    ] = None,
    unit: Annotated[
        Unit, typer.Option(help="What is counted: words (WER), characters (CER), phones (PER).")
    ] = Unit.WORD,
    fold: Annotated[
        Folding, typer.Option(help="Fold the phones of both sides, after TIMIT's custom.")
    ] = Folding.NONE,
    silence: Annotated[
        Silence,
        typer.Option(
            help="Silence phones (sil, h#, pau) of both sides: count each, merge neighbouring "
            "ones into one, or ignore them."
        ),
    ] = Silence.COUNT,
    alignment: Annotated[
        AlignmentName,
        typer.Option(
            help="edit: minimum edit distance. nist: sclite's weights, { a / b } and (optional) "
            "words, no difference of case."
        ),
    ] = AlignmentName.EDIT,
    normalise: Annotated[
        str,
        typer.Option(
            "--normalise",
            "--normalize",
            metavar="WHAT[,WHAT]",
            help=f"Make both sides alike in {', '.join(NORMALISATIONS)}.",
        ),
    ] = "",
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
            help="Is HYP_B better than HYP? Give the difference with its intervals, and "
            "significance tests.",
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
    extension. An stm has the references of segments of recordings
    and needs a ctm, time-marked words; a ctm alone is an utterance for each file. timit is a
    folder of .PHN, .WRD and .TXT files. A hypothesis that is missing is scored as empty.
    """
    import gc
    import json
    import os
    import shutil
    import sys

    # The threads that numpy starts else are a tenth of the time of a million words, for nothing.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from asr.score import show, significance
    from asr.score.error_rate import total
    from asr.score.pairs import align_matched, checked_policy
    from asr.score.read import identified, match, read_transcripts

    ways = named_ways(normalise)
    policy = checked_policy(unit.value, alignment.value, fold.value, silence.value, ways)
    if compare != (hyp_b is not None):
        raise InputError("--compare and HYP_B go together: asr score REF HYP HYP_B --compare")
    if compare and (errors or report or intervals):
        raise InputError("--compare has its own output, without --errors, --report, --intervals")
    # A million words make many objects, and no cycles among them.
    gc.disable()
    ref_format, _, hyp_format = (format or "").partition(",")
    references = read_transcripts(ref, ref_format or None)

    def scored(path: Path) -> tuple[Matched, Alignments]:
        hypotheses = read_transcripts(path, hyp_format or ref_format or None, hypothesis=True)
        pair = references, hypotheses
        if not format:
            pair = identified(*pair)
        for before, after in zip((references, hypotheses), pair, strict=True):
            if before.format != after.format:
                print(
                    f"asr: {after.path}: every line has its id: read as {after.format}; if these "
                    "are words, say --format txt",
                    file=sys.stderr,
                )
        matched = match(*pair)
        _tell_unmatched(matched, hypotheses)
        return matched, align_matched(matched, unit, alignment, fold, silence, ways)

    matched, alignments = scored(hyp)
    scores = total(alignments, unit, policy)
    if hyp_b:
        matched_b, alignments_b = scored(hyp_b)
        scores_b = total(alignments_b, unit, policy)
        comparison = significance.compare(alignments, alignments_b, _speakers(matched, references))
        if as_json:
            both = {
                "a": show.as_json(scores) | _unmatched(matched),
                "b": show.as_json(scores_b) | _unmatched(matched_b),
            }
            print(json.dumps(both | show.comparison_json(comparison), indent=2))
        else:
            print(f"A: {show.summary_line(scores)}\nB: {show.summary_line(scores_b)}")
            print(show.comparison_text(comparison))
        return
    if report:
        from asr.score.report import write_report

        speakers = _speakers(matched, references)
        write_report(report, scores, matched.ids, speakers, alignments, _unmatched(matched))
    document = show.as_json(scores) | _unmatched(matched)
    lines = [show.summary_line(scores)]
    if intervals:
        found = significance.intervals(alignments, _speakers(matched, references))
        for groups, interval in zip(("utterances", "speakers"), found, strict=True):
            if interval:
                document[f"over_{groups}"] = show.plain(interval)
                lines.append("  " + show.interval_line(interval, groups))
    if errors:
        wrong = [(matched.ids[u], alignments[u]) for u in alignments.errors.nonzero()[0].tolist()]
        document["errors"] = [{"id": i, "alignment": a.columns} for i, a in wrong]
        width = shutil.get_terminal_size().columns
        for i, a in wrong:
            counts = f"S {a.substitutions}, D {a.deletions}, I {a.insertions}"
            lines.append(f"\n{i}  [{counts} of {a.reference_length}]")
            lines.append(show.aligned_text(a, width))
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print("\n".join(lines))


def _speakers(matched: Matched, references: Transcripts) -> list[str]:
    """Of every utterance: as the file says, else from the id; "" where unknown."""
    from asr.score.report import speaker_of

    named = references.format != "txt"
    return [
        line.speaker or (speaker_of(i) if named else "")
        for i, (line, _) in zip(matched.ids, matched.pairs, strict=True)
    ]


def _unmatched(matched: Matched) -> dict[str, tuple[str, ...]]:
    return {"missing": matched.missing, "unscored": matched.unscored}


def _tell_unmatched(matched: Matched, hypotheses: Transcripts) -> None:
    import sys

    for ids, fate in (
        (matched.missing, "reference(s) without a hypothesis, scored as all deleted"),
        (matched.unscored, "hypotheses without a reference, not scored"),
    ):
        if ids:
            print(f"asr: {hypotheses.path}: {len(ids)} {fate}: {', '.join(ids)}", file=sys.stderr)
