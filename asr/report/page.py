"""The report of a run: one HTML file that needs nothing else, on screen and on paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr.nets.recurrent import count_parameters
from asr.recognize.evaluate import policy
from asr.report.curves import best_epoch, dev_rate, training
from asr.report.errors import confusions, lengths, speakers, tokens
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
from asr.report.run import Judged, Rate, Run, chosen, read_run
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
    judged = chosen(run, set_name, decoder)
    sections: list[tuple[str, str, Child]] = []
    if run.metrics:
        sections.append(("training", "Training", training(run)))
    if judged is not None:
        rate = judged.main
        units = UNIT_NAMES[rate.scores.unit]
        looked_into = f"{judged.set}, {judged.decoder}"
        sections += [
            ("rates", "Error rates", error_rates(run, judged)),
            (
                "groups",
                "Length and speaker",
                [lengths(judged, looked_into), speakers(judged, looked_into)],
            ),
            (
                "tokens",
                units.capitalize(),
                [tokens(rate, units, looked_into), confusions(rate, units, looked_into)],
            ),
            ("utterances", "Utterances", utterances(run, judged)),
        ]
    sections += [("data", "Data", data_sets(run)), ("setup", "Configuration", setup(run))]
    return _document(run, judged, sections)


def _document(run: Run, judged: Judged | None, sections: Sequence[tuple[str, str, Child]]) -> str:
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
    nav = el(
        "nav",
        [el("a", title, href=f"#{anchor}") for anchor, title, _ in sections],
        aria_label="Sections",
    )
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
            _head(run, judged, name),
            nav,
            el("main", [el("p", note, class_="note") for note in run.notes], body),
            el("footer", _made(run)),
            el("div", id="tip", role="status", hidden=True),
            el("script", Html(script)),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(run: Run, judged: Judged | None, name: str) -> Html:
    tiles: list[Html] = []
    if judged is not None:
        tiles.append(_rate_tile(judged, judged.main, main=True))
        # The other rates, by whatever decoder of this set has them.
        others = {n: j for j in run.judged if j.set == judged.set for n in j.rates}
        others |= dict.fromkeys(judged.rates, judged)
        tiles += [_rate_tile(j, j.rates[n]) for n, j in others.items() if n != judged.main.name]
    best = best_epoch(run)
    if run.metrics:
        rate_name = dev_rate(run)
        of = f"of {run.metrics[-1]['epoch']}"
        at_best = next((m for m in run.metrics if m["epoch"] == best), None)
        if rate_name and at_best is not None and is_number(at_best.get(rate_name)):
            value = rate_shown(at_best[rate_name])
            tiles.append(
                _tile(
                    value,
                    f"{rate_name.removeprefix('dev_')} on dev",
                    f"while training, after epoch {best} {of}",
                )
            )
        trained_s = run.metrics[-1].get("wall_s")
        if is_number(trained_s):
            speeds = [m["audio_s_per_s"] for m in run.metrics if is_number(m.get("audio_s_per_s"))]
            speed = f"{np.median(speeds):.0f} × real time" if speeds else ""
            tiles.append(_tile(duration_shown(trained_s), "of training", speed))
    parameters = run.results.get("parameters")
    if parameters is None and run.bundle is not None:
        parameters = count_parameters(run.bundle.model)
    if parameters is not None:
        tiles.append(_tile(count_shown(parameters), "parameters", _architecture(run)))
    return el(
        "header",
        el("p", "Carousel run", class_="kicker"),
        el("h1", name),
        el("p", " · ".join(_summary(run)), class_="lead"),
        el("div", tiles, class_="tiles"),
    )


def _tile(value: str, name: str, more: str, main: bool = False) -> Html:
    return el(
        "div",
        el("p", value, class_="value"),
        el("p", name, class_="name"),
        el("p", more, class_="more") if more else None,
        class_="tile main" if main else "tile",
    )


def _rate_tile(judged: Judged, rate: Rate, main: bool = False) -> Html:
    interval = rate.over_utterances
    return _tile(
        rate_shown(rate.value),
        f"{rate.name} on {judged.set}, {judged.decoder}",
        f"{interval_shown(interval.low, interval.high)} with {CONFIDENCE_SHOWN} confidence",
        main,
    )


def _summary(run: Run) -> list[str]:
    bundle = run.bundle
    if bundle is None:
        return [str(run.folder)]
    unit = {"phone": "phones", "char": "characters", "word": "words"}[bundle.labels.unit]
    criterion = "CTC" if bundle.criterion == "ctc" else bundle.criterion
    seed = run.results.get("seed")
    return [
        f"{len(bundle.labels) - 1} {unit}",
        criterion,
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
    made = "Made by asr report"
    date = run.environment.get("date")
    return f"{made} from {run.folder}" + (f"; judged {date}" if date else "")
