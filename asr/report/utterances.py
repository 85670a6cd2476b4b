"""The worst and the typical utterances, to see and to hear on one time axis."""

from __future__ import annotations

import math

from asr.report import charts
from asr.report.evidence import Evidence, Lane, Picture, gather, worst_and_typical
from asr.report.html import Attribute, Child, Html, data_uri, el
from asr.report.pieces import folded, legend, rate_shown
from asr.report.run import Run, ScoredSet
from asr.score.show import shown
from asr.types import Segment

_ERRORS = {"": "right", "S": "substituted", "D": "deleted", "I": "inserted"}


def utterances(run: Run, of: ScoredSet) -> Child:
    """The worst and the typical utterances of ``of``."""
    assert run.bundle is not None  # nothing is scored without it
    worst, typical = worst_and_typical(of)
    if not worst and not typical:
        return el("p", "No utterance is short enough to be shown.", class_="hint")
    found = gather(of, run.bundle, [*worst, *typical])
    hint = (
        "Click a word, a phone or a letter to hear it, or a picture to listen from there on. Times "
        "of what was heard, and of what was said where the corpus has none, come from aligning it "
        "to the posteriors."
    )
    parts = [el("p", hint, legend((kind, kind) for kind in _ERRORS.values()), class_="hint")]
    near = f"error rates nearest to the set's {rate_shown(of.main.value)}"
    for title, places, why in (
        ("The worst", worst, "the highest error rates"),
        ("The typical", typical, near),
    ):
        if places:
            parts.append(el("h3", title, el("span", f"{of.title}: {why}")))
            parts += [_utterance(of, found[i]) for i in places]
    return parts


def _utterance(of: ScoredSet, evidence: Evidence) -> Html:
    utterance, a = evidence.utterance, evidence.alignment
    n = a.reference_length
    counts = (
        f" {a.substitutions} substituted, {a.deletions} deleted, {a.insertions} inserted of {n}"
        f" · speaker {utterance.speaker} · {utterance.duration_s:.1f} s"
    )
    rate = el("b", f"{of.main.name} {rate_shown(a.errors / n if n else math.nan)}")
    head = el("div", el("h4", utterance.id), el("p", rate, counts), class_="utterance-head")
    parts: list[Child] = [head, el("blockquote", utterance.text) if utterance.text else None]
    if evidence.wav is not None:
        source = data_uri("audio/wav", evidence.wav)
        parts += [el("audio", controls=True, preload="auto", src=source), _tracks(evidence)]
    if evidence.note:
        parts.append(el("p", evidence.note, class_="note"))
    parts.append(folded("Alignment", _alignment(evidence)))
    return el("article", parts, class_="card utterance")


def _tracks(evidence: Evidence) -> Html:
    """All that has a time, on one axis."""
    duration_s = evidence.utterance.duration_s
    rows: list[Html] = []
    if evidence.waveform is not None:
        rows.append(_row("waveform", charts.envelope(*evidence.waveform), "track waveform"))
    if evidence.log_mel is not None:
        alt = f"Log-mel spectrogram of {evidence.utterance.id}"
        rows.append(_row("log-mel", _picture(evidence.log_mel, duration_s, alt), "track mel"))
    rows += [_lane(lane, duration_s) for lane in evidence.lanes]
    picture = evidence.posteriors
    if picture is not None and picture.rows:
        alt = f"Posteriors of {', '.join(picture.rows)} over time"
        names = [el("span", shown(name)) for name in picture.rows]
        rows.append(
            el(
                "div",
                el("div", names, class_="gutter names", aria_hidden="true"),
                el("div", _picture(picture, duration_s, alt), class_="track posteriors"),
                class_="row",
                style=f"--rows:{len(picture.rows)}",
            )
        )
    marks = [
        el("span", f"{t:.3g}{'' if t else ' s'}", style=f"left:{100 * t / duration_s:.3f}%")
        for t in charts.ticks(0, duration_s, 12)
    ]
    rows.append(_row(None, marks, "axis", "row time"))
    tracks = el(
        "div",
        rows,
        el("div", class_="playhead", hidden=True),
        class_="tracks",
        style=f"--seconds:{duration_s:.3f}",
        data_seconds=f"{duration_s:.4f}",
    )
    return el("div", tracks, class_="scroll")


def _row(name: str | None, content: Child, kind: str, row: str = "row", **more: Attribute) -> Html:
    """What stands beside its name."""
    gutter, track = el("div", name, class_="gutter"), el("div", content, class_=kind, **more)
    return el("div", gutter, track, class_=row)


def _picture(picture: Picture, duration_s: float, alt: str) -> Html:
    left = 100 * picture.start_s / duration_s
    width = 100 * (picture.end_s - picture.start_s) / duration_s
    style = f"left:{left:.4f}%;width:{width:.4f}%"
    return el("img", src=data_uri("image/png", picture.png), alt=alt, style=style)


def _lane(lane: Lane, duration_s: float) -> Html:
    buttons = [
        _button(segment, error, duration_s, is_first=i == 0)
        for i, (segment, error) in enumerate(zip(lane.segments, lane.errors, strict=True))
    ]
    return _row(lane.name, buttons, "track lane", role="group", aria_label=lane.name)


def _button(segment: Segment, error: str | None, duration_s: float, is_first: bool) -> Html:
    start_s, end_s = segment.start_s or 0.0, min(segment.end_s or 0.0, duration_s)
    told = f"{shown(segment.label)}, {start_s:.2f} to {end_s:.2f} s"
    if error is not None:
        told += f", {_ERRORS[error]}"
    return el(
        "button",
        shown(segment.label),
        type="button",
        class_="seg" if error is None else f"seg {_ERRORS[error]}",
        style=f"left:{100 * start_s / duration_s:.3f}%;"
        f"width:{100 * (end_s - start_s) / duration_s:.3f}%",
        data_start=f"{start_s:.4f}",
        data_end=f"{end_s:.4f}",
        data_tip=told,
        aria_label=told,
        # One stop of the tab key a lane; the arrows go on from there.
        tabindex=0 if is_first else -1,
    )


def _alignment(evidence: Evidence) -> Html:
    """Reference above hypothesis, column under column."""
    cells = []
    for said, heard, error in evidence.alignment.columns:
        both = el("span", shown(said)), el("span", shown(heard))
        cells.append(el("span", both, class_=f"pair {_ERRORS[error]}"))
    return el("div", cells, class_="pairs", aria_label="reference above, hypothesis below")
