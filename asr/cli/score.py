"""`asr score`: error rates of hypotheses against references."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app
from asr.errors import InputError
from asr.score.error_rate import Alignment
from asr.score.read import FORMAT_RULE, FORMATS, Transcripts
from asr.types import Scores


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

    The files hold one utterance a line: txt is plain text, matched by line; trn is 'words (id)';
    jsonl has objects with id (or audio_filepath), text and perhaps phones, manifests among them;
    kaldi is 'id words'; tsv is 'path TAB words', the id being the file's name without its
    extension. A hypothesis that is missing is scored as empty.
    """
    import json
    import shutil

    from asr.score import show, significance
    from asr.score.read import read_transcripts
    from asr.score.report import Scored, speaker_of, write_report

    if unit != "phone" and (fold != "none" or silence != "count"):
        raise InputError(f"--fold and --silence are for --unit phone, not {unit.value}")
    if unit == "char" and alignment == "nist":
        raise InputError("--alignment nist is for --unit word or phone, not char")
    if compare != (hyp_b is not None):
        raise InputError("--compare and HYP_B go together: asr score REF HYP HYP_B --compare")
    if compare and (errors or report or intervals):
        raise InputError("--compare has its own output, without --errors, --report, --intervals")
    ref_format, _, hyp_format = (format or "").partition(",")
    references = read_transcripts(ref, ref_format or None)
    speakers = [
        line.speaker or ("" if references.format == "txt" else speaker_of(i))
        for i, line in references.lines.items()
    ]

    def scored(path: Path) -> tuple[Scores, list[Alignment]]:
        hypotheses = read_transcripts(path, hyp_format or ref_format or None, hypothesis=True)
        return _score(references, hypotheses, unit, fold, silence, alignment)

    scores, alignments = scored(hyp)
    if hyp_b:
        scores_b, alignments_b = scored(hyp_b)
        comparison = significance.compare(alignments, alignments_b, speakers)
        if as_json:
            both = {"a": show.as_json(scores), "b": show.as_json(scores_b)}
            print(json.dumps(both | show.comparison_json(comparison), indent=2))
        else:
            print(f"A: {show.summary_line(scores)}\nB: {show.summary_line(scores_b)}")
            print(show.comparison_text(comparison))
        return
    utterances = list(map(Scored, references.lines, speakers, alignments))
    if report:
        write_report(report, scores, utterances)
    document = show.as_json(scores)
    lines = [show.summary_line(scores)]
    if intervals:
        found = significance.intervals(alignments, speakers)
        for groups, interval in zip(("utterances", "speakers"), found, strict=True):
            if interval:
                document[f"over_{groups}"] = show.plain(interval)
                lines.append("  " + show.interval_line(interval, groups))
    if errors:
        wrong = [u for u in utterances if u.alignment.errors]
        document["errors"] = [{"id": u.id, "alignment": u.alignment.columns} for u in wrong]
        width = shutil.get_terminal_size().columns
        for u in wrong:
            a = u.alignment
            counts = f"S {a.substitutions}, D {a.deletions}, I {a.insertions}"
            lines.append(f"\n{u.id}  [{counts} of {a.reference_length}]")
            lines.append(show.aligned_text(a, width))
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print("\n".join(lines))


def _score(
    references: Transcripts,
    hypotheses: Transcripts,
    unit: Unit,
    fold: Folding,
    silence: Silence,
    alignment: AlignmentName,
) -> tuple[Scores, list[Alignment]]:
    """Match, tell on standard error what does not match, and align."""
    import sys

    from asr.score.error_rate import align, policy_name, total
    from asr.score.read import match, token_pairs

    matched = match(references, hypotheses)
    for ids, fate in (
        (matched.missing, "reference(s) without a hypothesis, scored as all deleted"),
        (matched.unscored, "hypotheses without a reference, not scored"),
    ):
        if ids:
            print(f"asr: {hypotheses.path}: {len(ids)} {fate}: {' '.join(ids)}", file=sys.stderr)
    pairs = token_pairs(matched, unit, fold, silence)
    if alignment == "nist":
        from asr.score.nist import align_nist

        texts = ((" ".join(said), " ".join(heard)) for said, heard in pairs)
        alignments = align_nist(texts, matched.ids)
    else:
        alignments = align(pairs)
    return total(alignments, unit, policy_name(unit, fold, silence, alignment)), alignments
