"""`asr score`: error rates of hypotheses against references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr.cli import app
from asr.errors import InputError
from asr.score.lines import Matched, Transcripts
from asr.score.normalise import NORMALISATIONS, named_ways
from asr.score.read import FORMAT_RULE, FORMATS

if TYPE_CHECKING:
    from asr.score.alignment import Alignments
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
    hyps: Annotated[
        list[Path],
        typer.Argument(
            metavar="HYP...", help="What was recognised; by several systems for --compare."
        ),
    ],
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
    import os

    # The threads that numpy starts else are a tenth of the time of a million words, for nothing.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from asr.score import show
    from asr.score.error_rate import total
    from asr.score.pairs import align_matched, checked_policy
    from asr.score.read import identified, match, read_transcripts

    ways = named_ways(normalise)
    name_of_glm = glm.name if glm else ""
    policy = checked_policy(
        unit.value, alignment.value, fold.value, silence.value, ways, name_of_glm
    )
    if compare != (len(hyps) > 1):
        raise InputError("--compare and a second HYP go together: asr score REF HYP HYP --compare")
    if compare and (errors or intervals):
        raise InputError("--compare has its own output, without --errors and --intervals")
    # A million words make many objects, and no cycles among them.
    gc.disable()
    ref_format, _, hyp_format = (format or "").partition(",")
    references = read_transcripts(ref, ref_format or None)
    rules = None
    if glm:
        from asr.score.glm import Glm

        rules = Glm(glm)

    def scored(name: str, path: Path) -> System:
        hypotheses = read_transcripts(path, hyp_format or ref_format or None, hypothesis=True)
        pair = references, hypotheses
        if not format:
            pair = identified(*pair)
            _tell_identified((references, hypotheses), pair)
        if rules:
            pair = rules.applied(pair[0], "ref"), rules.applied(pair[1], "hyp")
        matched = match(*pair)
        _tell_unmatched(matched, hypotheses)
        alignments = align_matched(matched, unit, alignment, fold, silence, ways)
        scores = total(alignments, unit, policy)
        return System(name, path, pair[0].format, matched, alignments, scores)

    systems = [scored(*of) for of in zip(show.short_names(hyps), hyps, strict=True)]
    if compare:
        text, document = _compared(systems)
    else:
        text, document = _single(systems[0], errors, intervals)
    if report:
        _write(report, systems)
    if report and compare:
        from asr.system.files import write_text

        write_text(report / "comparison.txt", text + "\n")
        write_text(report / "comparison.json", json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, ensure_ascii=False, indent=2) if as_json else text)


@dataclass(frozen=True)
class System:
    """What a system recognised, and how that was scored; format: of the references."""

    name: str
    path: Path
    format: str
    matched: Matched
    alignments: Alignments
    scores: Scores

    @cached_property
    def speakers(self) -> list[str]:
        """Of every utterance: as the file says, else from the id; "" where unknown."""
        from asr.score.report import speaker_of

        named = self.format != "txt"
        return [
            line.speaker or (speaker_of(i) if named else "")
            for i, (line, _) in zip(self.matched.ids, self.matched.pairs, strict=True)
        ]


def _single(system: System, errors: bool, intervals: bool) -> tuple[str, dict[str, Any]]:
    """The score of one system, as text and for programs."""
    import shutil

    from asr.score import show, significance

    matched, alignments = system.matched, system.alignments
    document = show.as_json(system.scores) | _unmatched(matched)
    lines = [show.summary_line(system.scores)]
    if intervals:
        found = significance.intervals(alignments, system.speakers)
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
    return "\n".join(lines), document


def _compared(systems: Sequence[System]) -> tuple[str, dict[str, Any]]:
    """Each system's score, and the difference of each two, as text and for programs."""
    from itertools import combinations

    from asr.score import show, significance

    for system in systems[1:]:
        if system.matched.ids != systems[0].matched.ids:
            raise InputError(
                f"{systems[0].path}, {system.path}: the references have other ids with one than "
                "with the other; say with --format what all are"
            )
    lines = [f"{system.name}: {show.summary_line(system.scores)}" for system in systems]
    pairs = []
    for a, b in combinations(systems, 2):
        found = significance.compare(a.alignments, b.alignments, a.speakers)
        lines.append(show.comparison_text(found, a.name, b.name))
        pairs.append({"a": a.name, "b": b.name} | show.comparison_json(found))
    if len(pairs) > 1:
        lines.append(f"(each p is that of one test; there are {len(pairs)} pairs)")
    document = {
        "systems": [
            {"name": s.name, "file": str(s.path)} | show.as_json(s.scores) | _unmatched(s.matched)
            for s in systems
        ],
        "pairs": pairs,
    }
    return "\n".join(lines), document


def _write(folder: Path, systems: Sequence[System]) -> None:
    """The report of a system; of several, each in a folder with its name."""
    from asr.score.report import write_report

    for s in systems:
        # A name may have folders in it.
        own = folder / s.name.replace("/", "_") if len(systems) > 1 else folder
        unmatched = _unmatched(s.matched)
        write_report(own, s.scores, s.matched.ids, s.speakers, s.alignments, unmatched)


def _unmatched(matched: Matched) -> dict[str, tuple[str, ...]]:
    return {"missing": matched.missing, "unscored": matched.unscored}


def _tell_identified(before: tuple[Transcripts, ...], after: tuple[Transcripts, ...]) -> None:
    import sys

    for was, now in zip(before, after, strict=True):
        if was.format != now.format:
            print(
                f"asr: {now.path}: every line has its id: read as {now.format}; if these are "
                "words, say --format txt",
                file=sys.stderr,
            )


def _tell_unmatched(matched: Matched, hypotheses: Transcripts) -> None:
    import sys

    for ids, fate in (
        (matched.missing, "reference(s) without a hypothesis, scored as all deleted"),
        (matched.unscored, "hypotheses without a reference, not scored"),
    ):
        if ids:
            print(f"asr: {hypotheses.path}: {len(ids)} {fate}: {', '.join(ids)}", file=sys.stderr)
