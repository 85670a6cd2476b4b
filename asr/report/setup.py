"""What a run was made with: data, environment, decoders and configuration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from asr.report.html import Child, el
from asr.report.pieces import folded, pairs, table, value_shown
from asr.report.run import Run


def data_sets(run: Run) -> Child:
    """The sets, what was skipped of them, and the audit."""
    rows = []
    for name, utterances in run.sets.items():
        durations = [u.duration_s for u in utterances]
        skipped = run.skipped.get(name)
        rows.append(
            [
                name,
                str(len(utterances)),
                str(len({u.speaker for u in utterances})),
                f"{sum(durations) / 3600:.2f}",
                f"{np.median(durations):.1f}",
                f"{max(durations):.1f}",
                str(len(skipped)) if isinstance(skipped, Mapping) else "",
            ]
        )
    parts: list[Child] = []
    if rows:
        heads = ["set", "utterances", "speakers", "hours", "median s", "longest s", "skipped"]
        parts.append(
            el(
                "figure",
                el("div", table(heads, rows), class_="scroll"),
                class_="card",
            )
        )
    for name, reasons in run.skipped.items():
        if isinstance(reasons, Mapping) and reasons:
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
    environment = [
        [key, value_shown(value)] for key, value in run.environment.items() if value is not None
    ]
    parts: list[Child] = []
    if environment:
        parts.append(
            el(
                "figure",
                el("figcaption", el("strong", "Environment")),
                pairs(environment),
                class_="card",
            )
        )
    decoders = run.results.get("decoders")
    if isinstance(decoders, Mapping) and decoders:
        keys = list(dict.fromkeys(key for config in decoders.values() for key in config))
        rows = [
            [key, *(value_shown(config.get(key)) for config in decoders.values())] for key in keys
        ]
        parts.append(folded("Decoders", table(["setting", *decoders], rows)))
    parts.append(folded("config.yaml", el("pre", run.config, tabindex=0, aria_label="config.yaml")))
    return parts
