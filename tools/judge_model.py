"""Judge a model as the end of a training judges its own: for an ensemble, or other language models.

    python tools/judge_model.py MODEL RUN OUT [--lm WORDS.arpa] [--beam N] [--adapt]

MODEL is a model directory (`asr combine` writes one of several), RUN a finished training whose
manifests are judged on. Every decoder's weights are chosen on its dev set; dev and test are decoded
once with them. OUT becomes a folder that `tools/results_table.py` reads. With --adapt,
OUT-adapted becomes another: the same with the nets adapted to each speaker by what the richest
decoder finds, and weights chosen anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from asr.data.manifest import read_manifest
from asr.lm.ngram import NGram
from asr.model.adaptation import adapted_by
from asr.model.bundle import Bundle
from asr.model.emissions import LogProbs, emissions_of, log_probs_of
from asr.model.pretrained import load_model
from asr.nets.recurrent import count_parameters
from asr.recognize.evaluate import decoders_of, policy, teacher_of
from asr.recognize.tuning import calibrate, searches, tune_all
from asr.system.files import write_text
from asr.system.progress import progress_bar
from asr.train.results import score_set
from asr.train.rundir import RESULTS, environment
from asr.types import Utterance


def main() -> None:
    """Hear, judge; and with --adapt hear again and judge that."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lm", type=Path, metavar="WORDS.arpa")
    parser.add_argument("--beam", type=int)
    parser.add_argument("--adapt", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_model(args.model)
    if args.lm:
        bundle.word_lm = NGram.read_arpa(args.lm)
    if args.beam:
        bundle.decoder = replace(bundle.decoder, beam=args.beam)
    sets = {name: read_manifest(args.run / f"manifests/{name}.jsonl") for name in ("dev", "test")}
    judge(args.out, args.run, bundle, sets, log_probs_of)
    if args.adapt:
        adapted = args.out.with_name(f"{args.out.name}-adapted")
        judge(adapted, args.run, bundle, sets, adapted_by(bundle, teacher_of(bundle)))


def judge(
    out: Path,
    run: Path,
    bundle: Bundle,
    sets: Mapping[str, Sequence[Utterance]],
    outputs: LogProbs,
) -> None:
    """Tune, decode, score, write; the bundle's decoder becomes what is found."""
    shutil.copytree(run / "manifests", out / "manifests")
    skipped: dict[str, str] = {}
    log_probs = {n: emissions_of(bundle, of, skipped, outputs=outputs) for n, of in sets.items()}
    heard = {name: [u for u in of if u.id not in skipped] for name, of in sets.items()}
    with progress_bar() as progress:
        tune_all(heard["dev"], log_probs["dev"], bundle, searches(bundle), progress)
    bundle.calibrations, _ = calibrate(heard["dev"], log_probs["dev"], bundle)
    results = {
        "sets": {name: score_set(out, name, heard[name], log_probs[name], bundle) for name in sets},
        "decoders": {title: asdict(c) for title, c in decoders_of(bundle).items()},
        "policy": policy(bundle.label_config),
        "parameters": count_parameters(bundle.model),
        "skipped": {name: len(of) - len(heard[name]) for name, of in sets.items()},
        "environment": environment(),
    }
    write_text(out / RESULTS, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
