"""The report of a run: one HTML file that needs nothing else, on screen and on paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asr.nets.recurrent import count_parameters
from asr.recognize.evaluate import policy
from asr.report.curves import best_epoch, dev_rate, training
from asr.report.errors import confusions, lengths, speakers, token_counts, tokens
from asr.report.html import Child, Html, el
from asr.report.pieces import (
    CONFIDENCE_SHOWN,
    count_shown,
    duration_shown,
    interval_shown,
    is_number,
    rate_shown,
)
from asr.report.rates import error_rates
from asr.report.run import Run, ScoredSet, chosen, read_run
from asr.report.setup import data_sets, setup
from asr.report.utterances import utterances
from asr.score.error_rate import UNIT_NAMES
from asr.system.device import pick_device


def report(
    folder: Path,
    set_name: str | None = None,
    decoder: str | None = None,
    device: str = "auto",
) -> str:
    """The report of a run directory as HTML.

    set_name, decoder: what is looked into; by default a test set, by the decoder that is best on
    dev. device: what the model computes on, see `pick_device`.

    Raises:
        InputError: see `read_run`, `chosen` and `pick_device`.
    """
    target = pick_device(device)
    run = read_run(folder)
    if run.bundle is not None:
        run.bundle.model.to(target)
    of = chosen(run, set_name, decoder)
    sections: list[tuple[str, str, Child]] = []
    if run.metrics:
        sections.append(("training", "Training", training(run)))
    if of is not None:
        counts = token_counts(of.main.alignments)
        errors = [tokens(of, counts), confusions(of, counts)]
        sections += [
            ("rates", "Error rates", error_rates(run, of)),
            ("groups", "Length and speaker", [lengths(of), speakers(of)]),
            ("tokens", of.main.units.capitalize(), errors),
            ("utterances", "Utterances", utterances(run, of)),
        ]
    sections += [("data", "Data", data_sets(run)), ("setup", "Configuration", setup(run))]
    return _document(run, of, sections)


def _document(run: Run, of: ScoredSet | None, sections: Sequence[tuple[str, str, Child]]) -> str:
    here = Path(__file__)
    style = here.with_name("page.css").read_text(encoding="utf-8")
    script = here.with_name("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is fetched, and nothing runs but the script below, whatever the data hold.
    allowed = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    name = run.folder.resolve().name
    links = [el("a", title, href=f"#{anchor}") for anchor, title, _ in sections]
    body = [
        el("section", el("h2", title), content, id=anchor, aria_label=title)
        for anchor, title, content in sections
    ]
    page = el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", http_equiv="Content-Security-Policy", content=allowed),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("title", f"{name}: report"),
            el("style", Html(style)),
        ),
        el(
            "body",
            _head(run, of, name),
            el("nav", links, aria_label="Sections"),
            el("main", [el("p", note, class_="note") for note in run.notes], body),
            el("footer", _made(run)),
            el("div", id="tip", role="status", hidden=True),
            el("script", Html(script)),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(run: Run, of: ScoredSet | None, name: str) -> Html:
    return el(
        "header",
        el("p", "Carousel run", class_="kicker"),
        el("h1", name),
        el("p", " · ".join(_summary(run)), class_="lead"),
        el("div", [*_rate_tiles(run, of), *_training_tiles(run)], class_="tiles"),
    )


def _rate_tiles(run: Run, of: ScoredSet | None) -> Iterator[Html]:
    """The set's rates, its main one first; the other ones by whatever decoder has them."""
    if of is None:
        return
    others = {name: one for one in run.scored if one.set == of.set for name in one.rates}
    for name, one in ({of.main.name: of} | others | dict.fromkeys(of.rates, of)).items():
        rate = one.rates[name]
        interval = interval_shown(rate.over_utterances.low, rate.over_utterances.high)
        yield _tile(
            rate_shown(rate.value),
            f"{rate.name} on {one.title}",
            f"{interval} with {CONFIDENCE_SHOWN} confidence",
            main=rate is of.main,
        )


def _training_tiles(run: Run) -> Iterator[Html]:
    if run.metrics:
        last, best, rate_name = run.metrics[-1], best_epoch(run), dev_rate(run)
        at_best = next((m for m in run.metrics if m["epoch"] == best), {})
        if rate_name and is_number(at_best.get(rate_name)):
            name = f"{rate_name.removeprefix('dev_')} on dev"
            more = f"while training, after epoch {best} of {last['epoch']}"
            yield _tile(rate_shown(at_best[rate_name]), name, more)
        if is_number(last.get("wall_s")):
            speeds = [m["audio_s_per_s"] for m in run.metrics if is_number(m.get("audio_s_per_s"))]
            speed = f"{np.median(speeds):.0f} × real time" if speeds else ""
            yield _tile(duration_shown(last["wall_s"]), "of training", speed)
    parameters = run.results.get("parameters")
    if parameters is None and run.bundle is not None:
        parameters = count_parameters(run.bundle.model)
    if parameters is not None:
        yield _tile(count_shown(parameters), "parameters", _architecture(run))


def _tile(value: str, name: str, more: str, main: bool = False) -> Html:
    return el(
        "div",
        el("p", value, class_="value"),
        el("p", name, class_="name"),
        el("p", more, class_="more") if more else None,
        class_="tile main" if main else "tile",
    )


def _summary(run: Run) -> list[str]:
    bundle = run.bundle
    if bundle is None:
        return [str(run.folder)]
    seed = run.results.get("seed")
    return [
        f"{len(bundle.labels) - 1} {UNIT_NAMES[bundle.labels.unit]}",
        "CTC" if bundle.criterion == "ctc" else bundle.criterion,
        _architecture(run),
        *([f"seed {seed}"] if seed is not None else []),
        f"scored as {policy(bundle.label_config)}",
    ]


def _architecture(run: Run) -> str:
    if run.bundle is None:
        return ""
    net = run.bundle.architecture
    direction = "bidirectional " if net.bidirectional else ""
    before = f"{len(net.conv)} convolutions, " if net.conv else ""
    return f"{before}{net.layers} × {net.hidden} {direction}{net.cell}"


def _made(run: Run) -> str:
    date = run.environment.get("date")
    return f"Made by asr report from {run.folder}" + (f"; judged {date}" if date else "")
