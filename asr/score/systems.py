"""Systems scored against one reference: what `asr score` says of them, and the files it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import InputError
from asr.labels import FOLDINGS, SILENCE_POLICIES
from asr.score import show
from asr.score.alignment import Alignments
from asr.score.error_rate import UNIT_NAMES, policy_name, total
from asr.score.lines import Matched, Transcripts
from asr.score.pairs import align_matched, checked_policy
from asr.score.read import identified, match, read_transcripts
from asr.types import Scores

# Nothing is imported before it is needed: a million words are scored in a second.
Tell = Callable[[str], None]


class Choices(NamedTuple):
    """What is counted, and made alike before; see `asr.score`."""

    unit: str
    alignment: str
    fold: str
    silence: str
    normalise: Sequence[str]


#: What makes a figure again, by the policy that stands beside it.
BY_POLICY = {
    policy_name(unit, *way): Choices(unit, "edit", *way, ())
    for unit in UNIT_NAMES
    for way in (product(FOLDINGS, SILENCE_POLICIES) if unit == "phone" else [("none", "count")])
}


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

    @property
    def unmatched(self) -> dict[str, tuple[str, ...]]:
        """Ids that only one side has, and what became of them."""
        return {"missing": self.matched.missing, "unscored": self.matched.unscored}


def score_files(
    ref: Path,
    hyps: Sequence[Path],
    choices: Choices,
    tell: Tell,
    glm: Path | None = None,
    format: str | None = None,
) -> list[System]:
    """Score the transcripts of each system.

    glm: rules of a global mapping file, applied first of all. format: of both files, or of
    references and hypotheses with a comma between; by default what they look like. ``tell`` gets
    what was taken for granted, and the ids that only one side has.

    Raises:
        InputError: choices that do not go together, or a file that cannot be read or scored so.
    """
    policy = checked_policy(*choices, glm.name if glm else "")
    ref_format, _, hyp_format = (format or "").partition(",")
    references = read_transcripts(ref, ref_format or None)
    rules = None
    if glm:
        from asr.score.glm import Glm

        rules = Glm(glm)
    systems = []
    for name, path in zip(show.short_names(hyps), hyps, strict=True):
        hypotheses = read_transcripts(path, hyp_format or ref_format or None, hypothesis=True)
        pair = references, hypotheses
        if not format:
            pair = identified(*pair)
            _tell_identified((references, hypotheses), pair, tell)
        if rules:
            pair = rules.applied(pair[0], "ref"), rules.applied(pair[1], "hyp")
        matched = match(*pair)
        _tell_unmatched(matched, path, tell)
        alignments = align_matched(matched, *choices)
        scores = total(alignments, choices.unit, policy)
        systems.append(System(name, path, pair[0].format, matched, alignments, scores))
    return systems


def _tell_identified(
    before: tuple[Transcripts, ...], after: tuple[Transcripts, ...], tell: Tell
) -> None:
    for was, now in zip(before, after, strict=True):
        if was.format != now.format:
            tell(
                f"{now.path}: every line has its id: read as {now.format}; if these are words, say "
                "--format txt"
            )


def _tell_unmatched(matched: Matched, path: Path, tell: Tell) -> None:
    for ids, fate in (
        (matched.missing, "reference(s) without a hypothesis, scored as all deleted"),
        (matched.unscored, "hypotheses without a reference, not scored"),
    ):
        if ids:
            tell(f"{path}: {len(ids)} {fate}: {', '.join(ids)}")


def one(
    system: System, errors_width: int | None = None, intervals: bool = False
) -> tuple[str, dict[str, Any]]:
    """The score of one system, as text and for programs.

    errors_width: characters a line in which the wrong utterances are shown, aligned.
    """
    matched, alignments = system.matched, system.alignments
    document = show.as_json(system.scores) | system.unmatched
    lines = [show.summary_line(system.scores)]
    if intervals:
        from asr.score import significance

        found = significance.intervals(alignments, system.speakers)
        for groups, interval in zip(("utterances", "speakers"), found, strict=True):
            if interval:
                document[f"over_{groups}"] = show.plain(interval)
                lines.append("  " + show.interval_line(interval, groups))
    if errors_width is not None:
        wrong = [(matched.ids[u], alignments[u]) for u in alignments.errors.nonzero()[0].tolist()]
        document["errors"] = [{"id": i, "alignment": a.columns} for i, a in wrong]
        for i, a in wrong:
            counts = f"S {a.substitutions}, D {a.deletions}, I {a.insertions}"
            lines.append(f"\n{i}  [{counts} of {a.reference_length}]")
            lines.append(show.aligned_text(a, errors_width))
    return "\n".join(lines), document


def compared(systems: Sequence[System]) -> tuple[str, dict[str, Any]]:
    """Each system's score, and the difference of each two, as text and for programs.

    Raises:
        InputError: their references have other ids.
    """
    from asr.score import significance

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
            {"name": s.name, "file": str(s.path)} | show.as_json(s.scores) | s.unmatched
            for s in systems
        ],
        "pairs": pairs,
    }
    return "\n".join(lines), document


def write(
    folder: Path, systems: Sequence[System], comparison: tuple[str, dict[str, Any]] | None = None
) -> None:
    """Write the report of a system; of several, each in a folder with its name.

    comparison: as `compared` gives.
    """
    from asr.score.report import write_report
    from asr.system.files import write_text

    for s in systems:
        # A name may have folders in it.
        own = folder / s.name.replace("/", "_") if len(systems) > 1 else folder
        write_report(own, s.scores, s.matched.ids, s.speakers, s.alignments, s.unmatched)
    if comparison:
        text, document = comparison
        write_text(folder / "comparison.txt", text + "\n")
        write_text(folder / "comparison.json", json.dumps(document, indent=2) + "\n")
