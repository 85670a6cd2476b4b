"""SpeechBrain's TIMIT CTC recipe on a corpus of ours, as a yardstick.

    python tools/speechbrain_timit.py ROOT OUT --minutes 15 [--kind so762] [--device cuda]
    asr score OUT/test.ref.trn OUT/test.hyp.trn

recipes/TIMIT/ASR/CTC of SpeechBrain 1.x: its CRDNN of 4 x 512 bidirectional LiGRUs, 40 log-mels,
waveform augmentation (noise, speed, dropped bands and chunks, beside the clean original), Adadelta
annealed by NewBob on the dev error rate, batches of 8 in ascending length, 50 epochs, greedy
decoding. Two things differ: its noise files, which it downloads, give way to white noise, and the
labels are ours (40 of the CMU dictionary, silence counted).

After every epoch, every JUDGE_EVERY_S of training within one, and when the time is up, dev is
judged: a line in OUT/metrics.jsonl, with the seconds of training by then. At the end test is
decoded with the weights that were best on dev. Needs speechbrain and what it imports.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import speechbrain
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, DropChunk, DropFreq, SpeedPerturb
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.CRDNN import CRDNN
from speechbrain.nnet.activations import Softmax
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.losses import ctc_loss
from speechbrain.nnet.schedulers import NewBobScheduler, update_learning_rate
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr.audio.read import load_audio
from asr.corpora import load_corpus
from asr.labels import BLANK, unit_symbols
from asr.score.error_rate import score_pairs
from asr.system.files import write_text
from asr.types import Utterance

RATE, FOLDING, BATCH, EPOCHS, LR = 16_000, "cmu40", 8, 50, 1.0
JUDGE_EVERY_S = 600
#: Waveforms (B, N), their lengths, label ids (B, U) and theirs; lengths as shares of the longest.
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class Recognizer(speechbrain.Brain):
    """The recipe's forward pass and loss."""

    augment: Augmenter

    def compute_forward(self, batch: Batch, stage: speechbrain.Stage) -> tuple[Tensor, Tensor]:
        """-> log-probabilities (B, T, V), lengths as shares of the longest (B,)."""
        waves, lens = batch[0].to(self.device), batch[1].to(self.device)
        if stage == speechbrain.Stage.TRAIN:
            waves, lens = self.augment(waves, lens)
        features = self.modules.normalize(self.modules.fbank(waves), lens)
        return self.modules.softmax(self.modules.output(self.modules.model(features))), lens

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: speechbrain.Stage
    ) -> Tensor:
        """CTC; the augmented copies of the utterances have their labels, too."""
        labels, lens = batch[2].to(self.device), batch[3].to(self.device)
        if stage == speechbrain.Stage.TRAIN:
            labels = self.augment.replicate_labels(labels)
            lens = self.augment.replicate_labels(lens)
        return ctc_loss(predictions[0], labels, predictions[1], lens, blank_index=BLANK)


def build(n_labels: int, device: str) -> Recognizer:
    """The recipe's model, features, augmentation and optimizer."""
    modules = {
        "fbank": Fbank(sample_rate=RATE, n_fft=400, n_mels=40),
        "normalize": InputNormalization(norm_type="global"),
        "model": CRDNN(
            input_size=40,
            activation=nn.LeakyReLU,
            dropout=0.15,
            cnn_blocks=2,
            cnn_channels=(128, 256),
            cnn_kernelsize=(3, 3),
            time_pooling=True,
            rnn_layers=4,
            rnn_neurons=512,
            rnn_bidirectional=True,
            dnn_blocks=2,
            dnn_neurons=512,
        ),
        "output": Linear(n_labels, input_size=512),
        "softmax": Softmax(apply_log=True),
    }
    brain = Recognizer(
        modules,
        lambda parameters: torch.optim.Adadelta(parameters, lr=LR, rho=0.95, eps=1e-8),
        run_opts={"device": device},
    )
    brain.augment = Augmenter(
        concat_original=True,
        min_augmentations=4,
        max_augmentations=4,
        augment_prob=1.0,
        augmentations=[
            AddNoise(snr_low=0, snr_high=15, clean_sample_rate=RATE),
            SpeedPerturb(orig_freq=RATE, speeds=[95, 100, 105]),
            DropFreq(
                drop_freq_low=0,
                drop_freq_high=1,
                drop_freq_count_low=1,
                drop_freq_count_high=3,
                drop_freq_width=0.05,
            ),
            DropChunk(
                drop_length_low=1000, drop_length_high=2000, drop_count_low=1, drop_count_high=5
            ),
        ],
    )
    brain.init_optimizers()
    return brain


def batches_of(
    utterances: Sequence[Utterance], ids: dict[str, int]
) -> Iterator[tuple[list[Utterance], Batch]]:
    """Batches in ascending length."""
    ordered = sorted(utterances, key=lambda u: u.duration_s)
    for start in range(0, len(ordered), BATCH):
        part = ordered[start : start + BATCH]
        waves = [torch.from_numpy(load_audio(u.audio, RATE)) for u in part]
        labels = [torch.tensor([ids[s] for s in unit_symbols(u, "phone", FOLDING)]) for u in part]
        yield part, (*padded(waves), *padded(labels))


def padded(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sequences as one tensor, and their lengths as shares of the longest."""
    lens = torch.tensor([len(part) for part in parts])
    return pad_sequence(list(parts), batch_first=True), lens / lens.max()


@torch.no_grad()
def recognize(
    brain: Recognizer, utterances: Sequence[Utterance], ids: dict[str, int]
) -> dict[str, list[str]]:
    """Greedy hypotheses by utterance id."""
    symbols = {number: symbol for symbol, number in ids.items()}
    brain.modules.eval()
    found = {}
    for part, batch in batches_of(utterances, ids):
        log_probs, lens = brain.compute_forward(batch, speechbrain.Stage.TEST)
        for utterance, path in zip(part, ctc_greedy_decode(log_probs, lens, BLANK), strict=True):
            found[utterance.id] = [symbols[number] for number in path]
    brain.modules.train()
    return found


def phone_error_rate(hypotheses: dict[str, list[str]], utterances: Sequence[Utterance]) -> float:
    """As `asr score` has it, silence counted."""
    pairs = [(unit_symbols(u, "phone", FOLDING), hypotheses[u.id]) for u in utterances]
    return score_pairs(pairs, "phone", "").error_rate


def write_transcripts(path: Path, transcripts: dict[str, list[str]]) -> None:
    """In NIST's trn format."""
    lines = [f"{' '.join(said)} ({name})\n" for name, said in sorted(transcripts.items())]
    write_text(path, "".join(lines))


def main() -> None:
    """Train, decode, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", default="so762")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    speechbrain.utils.seed.seed_everything(1986)
    sets = load_corpus(chosen.kind, chosen.root).sets
    train, dev, test = (list(sets[name]) for name in ("train", "dev", "test"))
    said = {s for u in train for s in unit_symbols(u, "phone", FOLDING)}
    ids = {symbol: number for number, symbol in enumerate(sorted(said), BLANK + 1)}
    brain = build(len(ids) + 1, chosen.device)
    scheduler = NewBobScheduler(LR, annealing_factor=0.8, improvement_threshold=0.0025)
    write_transcripts(
        chosen.out / "test.ref.trn", {u.id: unit_symbols(u, "phone", FOLDING) for u in test}
    )
    metrics: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    spent_s = 0.0

    def judge_dev(epoch: int) -> float:
        """Dev's error rate, written and told; the best weights are kept."""
        rate = phone_error_rate(recognize(brain, dev, ids), dev)
        if rate < min((m["dev_PER"] for m in metrics), default=float("inf")):
            best.update({name: t.clone() for name, t in brain.modules.state_dict().items()})
        metrics.append({"epoch": epoch, "dev_PER": rate, "wall_s": spent_s})
        write_text(
            chosen.out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics)
        )
        print(f"epoch {epoch}  {spent_s / 60:.1f} min  dev PER {100 * rate:.2f} %", flush=True)
        return rate

    for epoch in range(1, EPOCHS + 1):
        brain.modules.train()
        brain.nonfinite_count = 0  # what Brain.fit does at each epoch, and fit_batch relies on
        next_judged_s = spent_s + JUDGE_EVERY_S
        began = time.perf_counter()
        for _, batch in batches_of(train, ids):
            brain.fit_batch(batch)
            now = time.perf_counter()
            spent_s, began = spent_s + now - began, now
            if spent_s > 60 * chosen.minutes:
                break
            if spent_s > next_judged_s:
                judge_dev(epoch)
                next_judged_s += JUDGE_EVERY_S
                began = time.perf_counter()
        rate = judge_dev(epoch)
        if spent_s > 60 * chosen.minutes:
            break
        _, lr = scheduler(rate)
        update_learning_rate(brain.optimizer, lr)
    brain.modules.load_state_dict(best)
    write_transcripts(chosen.out / "test.hyp.trn", recognize(brain, test, ids))


if __name__ == "__main__":
    main()
