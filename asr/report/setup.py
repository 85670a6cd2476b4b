"""What a run was made with: data, environment, decoders and configuration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from asr.report.html import Child, el
from asr.report.pieces import card, folded, pairs, table, value_shown
from asr.report.run import Run

SET_HEADS = ("set", "utterances", "speakers", "hours", "median s", "longest s", "skipped")


def data_sets(run: Run) -> Child:
    """The sets, what was skipped of them, and the audit."""
    skipped = {name: of for name, of in run.skipped.items() if isinstance(of, Mapping)}
    rows = []
    for name, utterances in run.sets.items():
        durations = [u.duration_s for u in utterances]
        n_speakers = len({u.speaker for u in utterances})
        n_skipped = str(len(skipped[name])) if name in skipped else ""
        hours = f"{sum(durations) / 3600:.2f}"
        seconds = f"{np.median(durations):.1f}", f"{max(durations):.1f}"
        rows.append([name, str(len(utterances)), str(n_speakers), hours, *seconds, n_skipped])
    parts: list[Child] = []
    if rows:
        scrolled = el("div", table(SET_HEADS, rows), class_="scroll")
        parts.append(el("figure", scrolled, class_="card"))
    for name, reasons in skipped.items():
        if reasons:
            listed = [[str(i), str(reason)] for i, reason in reasons.items()]
            parts.append(
                folded(f"Skipped in {name}: {len(listed)}", table(["utterance", "why"], listed))
            )
    audit = [[key, value_shown(value)] for key, value in run.audit.items() if value]
    if audit:
        parts.append(folded("Audit of the corpus", pairs(audit)))
    return parts


def setup(run: Run) -> Child:
    """Environment, decoders and the resolved configuration."""
    environment = [[k, value_shown(v)] for k, v in run.environment.items() if v is not None]
    parts: list[Child] = []
    if environment:
        parts.append(card("Environment", None, pairs(environment)))
    decoders = run.results.get("decoders")
    if isinstance(decoders, Mapping) and decoders:
        keys = dict.fromkeys(key for config in decoders.values() for key in config)
        rows = [[key, *(value_shown(of.get(key)) for of in decoders.values())] for key in keys]
        parts.append(folded("Decoders", table(["setting", *decoders], rows)))
    parts.append(folded("config.yaml", el("pre", run.config, tabindex=0, aria_label="config.yaml")))
    return parts
