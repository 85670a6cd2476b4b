"""The worst and the typical utterances, to see and to hear on one time axis."""

from __future__ import annotations

import math

from asr.labels import SPACE
from asr.report import charts
from asr.report.evidence import Evidence, Lane, Picture, gather, worst_and_typical
from asr.report.html import Child, Html, data_uri, el
from asr.report.pieces import folded, rate_shown
from asr.report.run import Judged, Run
from asr.score.show import shown
from asr.types import Segment

_ERRORS = {"": "right", "S": "substituted", "D": "deleted", "I": "inserted"}


def utterances(run: Run, judged: Judged) -> Child:
    """The worst and the typical utterances of ``judged``."""
    assert run.bundle is not None  # nothing is scored without it
    worst, typical = worst_and_typical(judged)
    found = gather(judged, run.bundle, [*worst, *typical])
    parts: list[Html] = []
    for title, places, why in (
        ("The worst", worst, "the highest error rates"),
        (
            "The typical",
            typical,
            f"error rates nearest to the set's {rate_shown(judged.main.value)}",
        ),
    ):
        if places:
            parts.append(el("h3", title, el("span", f"{judged.set}, {judged.decoder}: {why}")))
            parts += [_utterance(judged, found[i]) for i in places]
    if not parts:
        return el("p", "No utterance is short enough to be shown.", class_="hint")
    hint = (
        "Click a word, a phone or a letter to hear it, or a picture to listen from there on. Times "
        "of what was heard, and of what was said where the corpus has none, come from aligning it "
        "to the posteriors."
    )
    legend = [
        el("span", el("i", class_=f"key {kind}", aria_hidden="true"), kind)
        for kind in ("right", "substituted", "deleted", "inserted")
    ]
    return [el("p", hint, el("span", legend, class_="legend"), class_="hint"), *parts]


def _utterance(judged: Judged, evidence: Evidence) -> Html:
    utterance, alignment = evidence.utterance, evidence.alignment
    n = alignment.reference_length
    value = alignment.errors / n if n else math.nan
    counts = (
        f"{alignment.substitutions} substituted, {alignment.deletions} deleted, "
        f"{alignment.insertions} inserted of {n}"
    )
    head = el(
        "div",
        el("h4", utterance.id),
        el(
            "p",
            el("b", f"{judged.main.name} {rate_shown(value)}"),
            f" {counts} · speaker {utterance.speaker} · {utterance.duration_s:.1f} s",
        ),
        class_="utterance-head",
    )
    text = el("blockquote", utterance.text) if utterance.text else None
    parts: list[Child] = [head, text]
    if evidence.wav is not None:
        parts.append(
            el("audio", controls=True, preload="auto", src=data_uri("audio/wav", evidence.wav))
        )
        parts.append(_tracks(evidence))
    if evidence.note:
        parts.append(el("p", evidence.note, class_="note"))
    parts.append(folded("Alignment", _alignment(evidence)))
    return el("article", parts, class_="card utterance")


def _tracks(evidence: Evidence) -> Html:
    """All that has a time, on one axis."""
    duration_s = evidence.utterance.duration_s
    said = [lane for lane in evidence.lanes if lane.name.startswith("said")]
    heard = [lane for lane in evidence.lanes if not lane.name.startswith("said")]
    rows: list[Html] = []
    if evidence.waveform is not None:
        rows.append(_track("waveform", charts.envelope(*evidence.waveform), "waveform"))
    if evidence.log_mel is not None:
        alt = f"Log-mel spectrogram of {evidence.utterance.id}"
        rows.append(_track("log-mel", _picture(evidence.log_mel, duration_s, alt), "mel"))
    rows += [_lane(lane, duration_s) for lane in [*said, *heard]]
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
        el(
            "span",
            f"{t:.3g} s" if t == 0 else f"{t:.3g}",
            style=f"left:{100 * t / duration_s:.3f}%",
        )
        for t in charts.ticks(0, duration_s, 12)
    ]
    rows.append(
        el("div", el("div", class_="gutter"), el("div", marks, class_="axis"), class_="row time")
    )
    return el(
        "div",
        el(
            "div",
            rows,
            el("div", class_="playhead", hidden=True),
            class_="tracks",
            style=f"--seconds:{duration_s:.3f}",
            data_seconds=f"{duration_s:.4f}",
        ),
        class_="scroll",
    )


def _track(name: str, content: Html, kind: str) -> Html:
    return el(
        "div",
        el("div", name, class_="gutter"),
        el("div", content, class_=f"track {kind}"),
        class_="row",
    )


def _picture(picture: Picture, duration_s: float, alt: str) -> Html:
    left = 100 * picture.start_s / duration_s
    width = 100 * (picture.end_s - picture.start_s) / duration_s
    return el(
        "img",
        src=data_uri("image/png", picture.png),
        alt=alt,
        style=f"left:{left:.4f}%;width:{width:.4f}%",
    )


def _lane(lane: Lane, duration_s: float) -> Html:
    buttons = [
        _button(segment, error, duration_s, is_first=i == 0)
        for i, (segment, error) in enumerate(zip(lane.segments, lane.errors, strict=True))
    ]
    return el(
        "div",
        el("div", lane.name, class_="gutter"),
        el("div", buttons, class_="track lane", role="group", aria_label=lane.name),
        class_="row",
    )


def _button(segment: Segment, error: str | None, duration_s: float, is_first: bool) -> Html:
    start_s, end_s = segment.start_s or 0.0, min(segment.end_s or 0.0, duration_s)
    told = f"{shown(segment.label)}, {start_s:.2f} to {end_s:.2f} s"
    if error is not None:
        told += f", {_ERRORS[error]}"
    return el(
        "button",
        "␣" if segment.label == SPACE else segment.label,
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
    cells = [
        el(
            "span",
            el("span", shown(c.reference)),
            el("span", shown(c.hypothesis)),
            class_=f"pair {_ERRORS[c.error]}",
        )
        for c in evidence.alignment.columns
    ]
    return el("div", cells, class_="pairs", aria_label="reference above, hypothesis below")
