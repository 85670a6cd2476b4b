"""The same on a GPU: cells, models, losses, a training. Skipped where there is none."""

import copy
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from running import asr
from training_runs import train_tones as run

from asr.audio.features import FeatureConfig, Statistics
from asr.data.examples import Example, collate, pinned
from asr.data.manifest import read_manifest
from asr.decode.pronunciations import Entry
from asr.errors import InputError
from asr.g2p.model import Pronouncer
from asr.g2p.net import NetConfig
from asr.g2p.score import score as score_g2p
from asr.g2p.train import TrainConfig
from asr.g2p.train import train as train_g2p
from asr.g2p.words import Dictionary
from asr.labels import BLANK_SYMBOL, LabelConfig, Labels
from asr.lm.lstm import NeuralConfig, NeuralLM
from asr.lm.net import LanguageModel
from asr.model.adaptation import adapted_by
from asr.model.bundle import Bundle
from asr.model.emissions import emissions, emissions_of
from asr.model.stream import EmissionStream, advance
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.cells import CELLS
from asr.nets.config import RecurrentConfig
from asr.nets.losses import IGNORE, ctc_loss, framewise_loss
from asr.recognize.evaluate import teacher_of
from asr.recognize.recognizer import Recognizer
from asr.system.device import device_of
from asr.train import loop as training
from asr.train.begin import begin
from asr.train.config import RunConfig
from asr.train.sets import Held
from asr.train.setup import Prepared, about_sets
from asr.train.world import World
from asr.types import Utterance

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
DEMO = "recipes/demo/ctc.yaml"
#: Models that go along with speech.
LIVE = {
    "chunks": {"chunk": (4, 8), "lookahead": (2, 5)},
    "forward": {"bidirectional": False, "future": 3},
}


@pytest.fixture(autouse=True)
def all_of_float32(monkeypatch):
    """Without TF32, which cuDNN takes for float32 unless told otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(found, expected, most):
    """Each tensor differs from the expected one by at most this share of its norm."""
    for a, b in zip(found, expected, strict=True):
        a, b = a.detach().cpu().float(), b.detach().float()
        assert a.shape == b.shape
        assert (a - b).norm() <= most * b.norm(), ((a - b).norm() / b.norm(), a.shape)


def cell_and_gradients(cell, x, lens, first, device, precision="float32"):
    """Outputs, last state, and the gradients by input, first state and weights."""
    cell = copy.deepcopy(cell).to(device)
    x, lens = x.to(device).requires_grad_(), lens.to(device)
    first = tuple(s.to(device).requires_grad_() for s in first)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        output, last = cell(x, lens, first)
    total = (output * drawn(*output.shape, seed=7).to(device)).sum()
    for k, s in enumerate(last):
        total = total + (s * drawn(*s.shape, seed=8 + k).to(device)).sum()
    inputs = [x, *first, *cell.parameters()]
    return [output, *last, *torch.autograd.grad(total, inputs)]


# cuDNN has other algorithms for small layers and for half floats than for the rest.
@pytest.mark.parametrize("hidden", [16, 160, 256])
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("bfloat16", 0.04)])
@pytest.mark.parametrize("name", CELLS)
def test_cells(name, precision, most, hidden):
    torch.manual_seed(0)
    cell = CELLS[name](24, hidden)
    x, lens = drawn(5, 12, 24), torch.tensor([12, 1, 0, 7, 7])
    first = tuple(drawn(5, hidden, seed=2 + k) for k in range(len(cell.states)))
    expected = cell_and_gradients(cell, x, lens, first, CPU)
    assert_near(cell_and_gradients(cell, x, lens, first, GPU, precision), expected, most)


@pytest.mark.parametrize("name", CELLS)
def test_cells_without_gradients(name):
    torch.manual_seed(0)
    cell, x = CELLS[name](24, 32).eval(), drawn(3, 12, 24)
    with torch.inference_mode():
        expected, _ = cell(x)
        found, _ = cell.to(GPU)(x.to(GPU))
    assert_near([found], [expected], 1e-3)


@pytest.mark.filterwarnings("error:RNN module weights")
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_weights_lie_as_cudnn_wants_them(name):
    cell = CELLS[name](24, 32).to(GPU)
    cell(drawn(3, 12, 24).to(GPU))[0].sum().backward()


def test_autocast_means_bfloat16():
    """float16 has no room for small gradients, which are not scaled here."""
    cell = CELLS["lstm"](24, 256).to(GPU)
    with torch.autocast("cuda", torch.bfloat16):
        output, _ = cell(drawn(3, 12, 24).to(GPU))
    assert output.dtype == torch.bfloat16
    (2.0**-30 * output.float()).sum().backward()
    gradient = cell.weight_ih.grad.clone()
    cell.zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        output, _ = cell(drawn(3, 12, 24).to(GPU))
    output.float().sum().backward()
    assert_near([2.0**30 * gradient], [cell.weight_ih.grad.cpu()], 0.02)


def model_and_gradients(model, x, lens, device, precision="float32"):
    """Lengths, log-probabilities within them, and the gradients by the weights."""
    model = copy.deepcopy(model).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        log_probs, lens = model(x.to(device), lens.to(device))
    inside = torch.arange(log_probs.shape[1], device=device) < lens[:, None]
    log_probs = log_probs[inside]
    total = (log_probs * drawn(*log_probs.shape, seed=3).to(device)).sum()
    return lens, log_probs, torch.autograd.grad(total, list(model.parameters()))


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("bfloat16", 0.25)])
@pytest.mark.parametrize(
    "config",
    [
        RecurrentConfig(layers=2, hidden=16, conv=(3, 4)),
        RecurrentConfig(layers=3, hidden=256, conv=(16, 32)),
        RecurrentConfig(layers=2, hidden=16, cell="gru", subsample=(1, 2), between=(9,)),
        RecurrentConfig(layers=2, hidden=16, cell="rnn", bidirectional=False, after=(9,)),
        RecurrentConfig(units=(16, 16), cell="peephole", residual=True, layer_norm=True),
        RecurrentConfig(layers=3, hidden=16, conv=(3,), chunk=(8,), lookahead=(5,)),
        RecurrentConfig(layers=3, hidden=256, chunk=(1,), lookahead=(0,)),
        RecurrentConfig(layers=3, hidden=16, cell="gru_before", chunk=(4,), lookahead=(7,)),
        RecurrentConfig(layers=2, hidden=16, bidirectional=False, future=3),
    ],
)
def test_acoustic_models(config, precision, most):
    torch.manual_seed(0)
    config.dropout = config.conv_dropout = 0.0
    model = AcousticModel(config, 20, 7, n_bins=10)
    lens = torch.tensor([30, 21, 4, 9])
    x = drawn(4, 30, 20) * (torch.arange(30) < lens[:, None])[:, :, None]
    expected_lens, expected, gradients = model_and_gradients(model, x, lens, CPU)
    found_lens, found, found_gradients = model_and_gradients(model, x, lens, GPU, precision)
    assert found_lens.tolist() == expected_lens.tolist()
    assert_near([found], [expected], min(most, 0.02))
    assert_near(found_gradients, gradients, most)


def test_dropout_and_noise_follow_the_seed():
    config = RecurrentConfig(
        layers=2, hidden=16, conv=(3,), weight_noise=0.1, drop_connect=0.2, dropout=0.3
    )
    model = AcousticModel(config, 20, 7, n_bins=10).to(GPU)
    x, lens = drawn(2, 30, 20).to(GPU), torch.tensor([30, 30]).to(GPU)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(x, lens)[0])
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses(smoothing):
    lens, target_lens = torch.tensor([20, 12, 9]), torch.tensor([6, 1, 0])
    targets = torch.full((3, 6), IGNORE)
    targets[0], targets[1, 0] = torch.tensor([1, 1, 2, 4, 3, 3]), 4
    frames = torch.arange(60).view(3, 20) % 4 + 1
    frames[torch.arange(20) >= lens[:, None]] = IGNORE
    results = []
    for device in (CPU, GPU):
        logits = drawn(3, 20, 5).to(device).requires_grad_()
        log_probs = logits.log_softmax(2)
        ctc = ctc_loss(log_probs, *(t.to(device) for t in (lens, targets, target_lens)))
        framewise = framewise_loss(log_probs, frames.to(device), smoothing)
        by_ctc, by_framewise = (
            torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ctc, framewise)
        )
        results.append([ctc, framewise, by_ctc, by_framewise])
    assert_near(results[1], results[0], 1e-4)


def example(number, n_frames, n_mels=80):
    utterance = Utterance(str(number), Path("drawn"), "drawn", n_frames / 100)
    return Example(utterance, drawn(n_frames, n_mels, seed=number).numpy(), (1, 2, 3), None)


def test_batches_are_pinned():
    batch = collate([example(1, 50), example(2, 40)], RunConfig().features, framewise=False)
    held = pinned(batch)
    assert held.ids == batch.ids
    for name in ("features", "feature_lens", "targets", "target_lens"):
        assert getattr(held, name).is_pinned()
        assert torch.equal(getattr(held, name), getattr(batch, name))


def stopped_and_resumed(n_epochs, tones, run_dir, *overrides):
    """Train on the GPU; Ctrl-C comes after some epochs, and it goes on from there."""
    add = training.add_metrics

    def add_and_stop(run_dir, metrics):
        add(run_dir, metrics)
        if metrics["epoch"] == n_epochs:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "add_metrics", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(DEMO, tones, run_dir, "trainer.device=cuda", *overrides)
    results = run(DEMO, tones, run_dir, "trainer.device=cuda", *overrides, resume=True)
    log = (run_dir / "train.log").read_text()
    assert f"resuming after epoch {n_epochs} and 0 batches" in log
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == list(range(1, results["epochs"] + 1))
    assert results["bad_steps"] == 0
    return results


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_learns_stops_resumes_and_transcribes_on_the_cpu(tones, tmp_path, precision):
    run_dir = tmp_path / "run"
    overrides = [f"trainer.precision={precision}", "trainer.max_epochs=16"]
    overrides += ["trainer.save_minutes=1e-9", "trainer.tune=false"]
    results = stopped_and_resumed(6, tones, run_dir, *overrides)
    assert results["sets"]["test"]["greedy"]["PER"]["error_rate"] < 0.1
    said = read_manifest(run_dir / "manifests/test.jsonl")
    recognizer = Recognizer.load(run_dir, "cpu", decoder="beam", lexicon="model")
    right = sum(recognizer.transcribe(u.audio).text == u.text for u in said)
    assert right >= len(said) - 1


EVERYTHING = [
    "augment=specaugment",
    "augment.speeds=[0.9,1.0,1.1]",
    "augment.vtlp=0.1",
    "features.deltas=1",
    "model.layers=2",
    "model.conv=[3,4]",
    "model.between=[20]",
    "model.subsample=[1,2]",
    "features.stack=1",
    "model.layer_norm=true",
    "model.residual=true",
    "model.dropout=0.2",
    "model.weight_noise=0.01",
    "model.drop_connect=0.1",
    "optim.lr=0.003",
    "optim.schedule=one_cycle",
    "optim.ema=0.9",
    "trainer.average_last=2",
    "trainer.average_best=2",
    "trainer.curriculum_epochs=1",
    "trainer.precision=bfloat16",
    "loss.framewise_epochs=1",
    "loss.framewise_weight=0.3",
    "loss.label_smoothing=0.1",
    "trainer.tune=false",
]


@pytest.mark.parametrize("cell", CELLS)
def test_every_option_goes_with_a_gpu(tones, tmp_path, cell):
    overrides = [f"model.cell={cell}", "trainer.max_epochs=3", "trainer.workers=1", *EVERYTHING]
    stopped_and_resumed(2, tones, tmp_path / "run", *overrides)


def test_emissions_are_those_of_the_cpu(tone_run):
    bundle = load_bundle(tone_run)
    examples = [example(k, 30 * k, n_mels=40) for k in (1, 2, 3)]
    expected = emissions(bundle, examples)
    bundle.model.to(GPU)
    found = emissions(bundle, examples)
    assert found.keys() == expected.keys()
    assert_near(
        [torch.from_numpy(found[i]) for i in expected],
        [torch.from_numpy(x) for x in expected.values()],
        1e-3,
    )


def test_nets_are_adapted_as_on_the_cpu(tone_run, said):
    bundle = load_bundle(tone_run)
    outputs = adapted_by(bundle, teacher_of(bundle))
    plain = emissions_of(bundle, said, {})
    expected = emissions_of(bundle, said, {}, outputs=outputs)
    bundle.model.to(GPU)
    found = emissions_of(bundle, said, {}, outputs=outputs)
    for name, adapted in expected.items():
        moved = np.abs(adapted - plain[name]).mean()
        # Adam makes a whole step of the least gradient.
        assert np.abs(found[name] - adapted).mean() < 0.1 * moved


@pytest.mark.parametrize("name", ["chunks", "forward"])
def test_streams_are_those_of_the_cpu(name):
    torch.manual_seed(0)
    architecture = RecurrentConfig(layers=2, hidden=16, conv=(3,), **LIVE[name])
    features = FeatureConfig(n_mels=20, normalize="online")
    labels = Labels("phone", (BLANK_SYMBOL, "a", "b", "c"))
    model = AcousticModel(architecture, features.size, len(labels), 20).eval()
    stats = Statistics(np.full(20, -6, np.float32), np.full(20, 2, np.float32))
    about = (features, architecture, labels, LabelConfig("phone"), "ctc", model)
    bundle = Bundle(*about, stats=stats)
    expected = streamed(bundle)
    model.to(GPU)
    found = streamed(bundle)
    assert [len(rows) for rows in found] == [len(rows) for rows in expected]
    assert_near(map(torch.from_numpy, found), map(torch.from_numpy, expected), 1e-3)


def streamed(bundle):
    """Log-probabilities of three streams of noise that end at different times."""
    streams = [EmissionStream(bundle) for _ in range(3)]
    for i, stream in enumerate(streams):
        for packet in (0.1 * drawn(5000 * (i + 1), seed=i)).clamp(-1, 1).split(777):
            stream.accept(packet.numpy(), 16_000)
        stream.finish()
    advance(streams)
    return [stream.take() for stream in streams]


@pytest.mark.parametrize("name", ["chunks", "forward"])
def test_a_live_training_learns_stops_resumes_and_listens(tones, tmp_path, both, name):
    run_dir = tmp_path / "run"
    overrides = ["features.normalize=online", "trainer.max_epochs=16", "trainer.tune=false"]
    overrides += [
        f"model.{key}={list(value) if isinstance(value, tuple) else value}"
        for key, value in LIVE[name].items()
    ]
    results = stopped_and_resumed(6, tones, run_dir, *overrides)
    assert results["sets"]["test"]["greedy"]["PER"]["error_rate"] < 0.15
    for utterance in read_manifest(run_dir / "manifests/test.jsonl")[:3]:
        on_cpu, on_gpu = both("listen", utterance.audio, "--model", run_dir)
        assert on_gpu == on_cpu != ""


def test_running_out_of_memory_is_one_line(tmp_path):
    config = RunConfig()
    model = AcousticModel(config.model, config.features.size, 5)
    # 240 s, the most in a batch: its first layer alone keeps about 100 MiB.
    labels = Labels("phone", (BLANK_SYMBOL, "a", "b", "c", "d"))
    train = [example(k, 3000) for k in range(8)]
    held = Held(train, about_sets(config, labels))
    bundle = Bundle(config.features, config.model, labels, config.labels, "ctc", model)
    begun = begin(tmp_path, config, Prepared(bundle, held, {}, {}), World(GPU))
    torch.cuda.empty_cache()
    most = torch.cuda.memory_reserved() + (32 << 20)
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(InputError) as told:
            training.run_epoch(begun, "ctc")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    line = str(told.value)
    assert line.startswith("out of memory in step 1: a batch of 8 utterances, padded to 1000 ")
    assert "lower trainer.max_batch_s=240" in line
    assert "\n" not in line


@pytest.fixture
def both(monkeypatch, capsys):
    """What a command prints with the CPU and with the GPU."""

    def outputs(*words):
        found = []
        for device in ("cpu", "cuda", "cuda:0"):
            status, out, err = asr(monkeypatch, capsys, *words, "--device", device)
            assert status == 0, err
            found.append(out)
        return found[:2]

    return outputs


def test_transcribing(tone_run, said, both):
    files = [u.audio for u in said]
    on_cpu, on_gpu = both("transcribe", *files, "--model", tone_run)
    assert on_gpu == on_cpu
    short, _ = both("transcribe", *files, "--model", tone_run, "--precision", "bfloat16")
    assert len(short.splitlines()) == len(said)


def test_transcribing_in_python(tone_run, said):
    recognizer = Recognizer.load(tone_run)
    assert device_of(recognizer.bundle.model).type == "cuda"
    found = [recognizer.transcribe(u.audio).text for u in said]
    plain = Recognizer.load(tone_run, device="cpu")
    assert found == [plain.transcribe(u.audio).text for u in said]


def test_aligning(tone_run, said, both, tmp_path):
    (tmp_path / "a.txt").write_text(said[0].text)
    words = ["align", said[0].audio, tmp_path / "a.txt", "--model", tone_run, "--format", "json"]
    on_cpu, on_gpu = (json.loads(out) for out in both(*words))
    assert [w["label"] for w in on_gpu["words"]] == [w["label"] for w in on_cpu["words"]]
    for a, b in zip(on_gpu["words"], on_cpu["words"], strict=True):
        assert a["start_s"] == pytest.approx(b["start_s"], abs=0.02)


def test_tuning(tone_run, tmp_path, monkeypatch, capsys):
    found = []
    for device in ("cpu", "cuda"):
        model = tmp_path / device
        shutil.copytree(tone_run / "model", model)
        dev = tone_run / "manifests" / "dev.jsonl"
        words = ["tune", dev, "--model", model, "--beam", 5, "--device", device]
        status, out, err = asr(monkeypatch, capsys, *words)
        assert status == 0, err
        lines = [line for line in out.splitlines() if line.endswith("% errors")]
        found.append([line.split(":")[0] for line in lines])
    assert found[1] == found[0] != []


def test_int8_is_refused(tone_run, said, monkeypatch, capsys):
    words = ["transcribe", said[0].audio, "--model", tone_run, "--precision", "int8"]
    status, _, err = asr(monkeypatch, capsys, *words, "--device", "cuda")
    assert (status, err) == (2, "asr: device cuda:0: int8 is for the CPU; use cpu\n")
    assert asr(monkeypatch, capsys, *words)[0] == 0


def test_a_language_model_scores(tmp_path, both):
    (tmp_path / "text.txt").write_text("a b c\nb c a\n" * 20)
    config = NeuralConfig()
    model = NeuralLM(
        config, ("<unk>", "<s>", "</s>", "a", "b", "c"), LanguageModel(config.model, 6)
    )
    model.save(tmp_path / "lm")
    on_cpu, on_gpu = both("lm", "score", tmp_path / "lm", tmp_path / "text.txt", "--json")
    perplexity = json.loads(on_cpu)["perplexity"]
    assert json.loads(on_gpu)["perplexity"] == pytest.approx(perplexity, rel=1e-3)


def test_letters_to_phones_train_on_a_gpu(tmp_path):
    words = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "ptk"]
    entries = tuple(Entry(f"lexicon:{i}", word, tuple(word)) for i, word in enumerate(words))
    lexicon = Dictionary(tmp_path, entries)
    config = TrainConfig(NetConfig(layers=2, hidden=32, dropout=0.1), epochs=30, batch=16, lr=0.01)
    model, found = train_g2p(lexicon, lexicon, config, torch.device("cuda"))
    assert found.word_error_rate < 0.1
    model.save(tmp_path)
    assert score_g2p(Pronouncer.load(tmp_path), lexicon).word_error_rate < 0.1
