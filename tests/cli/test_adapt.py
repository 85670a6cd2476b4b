"""Adapting to speakers as a user does it: transcribe, tune, train."""

import json
import shutil
from dataclasses import replace

import pytest
from running import asr
from training_runs import train_tones

from asr.audio.read import load_audio
from asr.audio.sources import Source
from asr.data.manifest import read_manifest, write_manifest
from asr.errors import InputError
from asr.model.adaptation import adapted_by
from asr.model.emissions import emissions_of
from asr.model.weights import load_bundle
from asr.recognize.evaluate import decode_set, teacher_of
from asr.recognize.recognizer import Recognizer
from asr.train.recipe import load_config


@pytest.fixture
def manifest(said, tmp_path):
    """Its speakers take turns."""
    path = tmp_path / "said.jsonl"
    assert len({u.speaker for u in said}) == 2
    write_manifest(path, [*said[::2], *said[1::2]])
    return path


def adapted(bundle, said):
    return emissions_of(bundle, said, {}, outputs=adapted_by(bundle, teacher_of(bundle)))


def transcripts(out):
    return {line["id"]: line for line in map(json.loads, out.splitlines())}


def test_a_manifest_says_who_speaks(model, said, manifest, monkeypatch, capsys):
    words = "transcribe", "--adapt", "--model", model, "--format", "json", manifest
    status, out, err = asr(monkeypatch, capsys, *words)
    assert (status, err) == (0, "")
    bundle = load_bundle(model / "model")
    wanted = decode_set(said, adapted(bundle, said), bundle, bundle.make_decoder(bundle.decoder))
    found = transcripts(out)
    for u, hypothesis in zip(said, wanted.hypotheses, strict=True):
        labels = [part["label"] for part in found[u.id]["labels"]]
        assert labels == bundle.labels.decode(hypothesis.labels)
        assert found[u.id]["score"] == pytest.approx(hypothesis.score, abs=1e-3)
    # Speaker by speaker.
    speakers = {u.id: u.speaker for u in said}
    order = [speakers[name] for name in found]
    assert order == sorted(order, key=order.index)
    _, plain, _ = asr(monkeypatch, capsys, *(w for w in words if w != "--adapt"))
    assert list(transcripts(plain)) == [u.id for u in read_manifest(manifest)]
    assert list(transcripts(plain)) != list(found)
    assert any(transcripts(plain)[name]["score"] != found[name]["score"] for name in found)


def test_other_files_are_taken_one_by_one(model, said, monkeypatch, capsys):
    files = [u.audio for u in said]
    words = "transcribe", "--adapt", "--model", model, "--format", "json"
    status, out, err = asr(monkeypatch, capsys, *words, *files)
    assert (status, err) == (0, "")
    alone = [asr(monkeypatch, capsys, *words, file)[1] for file in files]
    scores = [[json.loads(line)["score"] for line in text.splitlines()] for text in (out, *alone)]
    assert scores[0] == [score for (score,) in scores[1:]]
    bundle = load_bundle(model / "model")
    own = adapted(bundle, [replace(u, speaker=u.id) for u in said])
    wanted = decode_set(said, own, bundle, bundle.make_decoder(bundle.decoder)).hypotheses
    assert scores[0] == pytest.approx([h.score for h in wanted], abs=1e-3)


def test_waveforms_are_taken_one_by_one(model, said):
    recognizer = Recognizer(load_bundle(model / "model"), adapt=True)
    named = [("audio", load_audio(u.audio, 16_000)) for u in said[:3]]
    together = recognizer.recognize(named)
    assert together == [recognizer.recognize([one])[0] for one in named]


def test_a_speaker_fills_a_batch_alone(model, said, monkeypatch):
    """And what others say, before and after, makes no difference to what they learn from."""
    heard = []

    def listening(bundle, waveforms, *how):
        heard.append(how[-1][1])
        return [whole for _, whole in zip(waveforms, emissions, strict=False)]

    recognizer = Recognizer(load_bundle(model / "model"), adapt=True)
    emissions = recognizer.emissions([load_audio(said[0].audio, 16_000)]) * len(said)
    monkeypatch.setattr("asr.recognize.recognizer.waveform_emissions", listening)
    lasts = said[0].duration_s
    one = Source(said[0].audio, "a", speaker="x")
    sources = [*[one] * 3, replace(one, speaker="y"), *[one] * 3, replace(one, speaker="z")]
    list(recognizer.transcribe_files(sources, pytest.fail, batch_s=1.5 * lasts))
    # Of what is longer than a batch, a batch at a time.
    assert heard == [["x"] * 2, ["x", "y"], ["x"] * 2, ["x", "z"]]


def test_speech_that_comes_is_not_adapted_to(live_run, said, tmp_path, monkeypatch, capsys):
    recognizer = Recognizer(load_bundle(live_run / "model"), adapt=True)
    with pytest.raises(InputError, match="takes whole files"):
        recognizer.stream()
    # As a file it is heard by a model of live speech, too.
    transcript = recognizer.transcribe(said[0].audio)
    assert transcript.labels
    status, _, err = asr(monkeypatch, capsys, "listen", "--adapt", "--model", live_run, "a.wav")
    assert status != 0
    assert "--adapt" in err


def test_what_cannot_be_adapted_is_one_line(model, said, tmp_path, monkeypatch, capsys):
    runtime = tmp_path / "runtime"
    asr(monkeypatch, capsys, "export", "--model", model, "--out", runtime)
    file = said[0].audio
    for options, told in (
        (["--model", runtime], "is for models that asr train wrote"),
        (["--model", model, "--precision", "int8"], "int8: such a net cannot be adapted"),
        (["--server", "http://localhost:1"], "is the server's to choose"),
    ):
        words = "transcribe", "--adapt", *options, file
        status, out, err = asr(monkeypatch, capsys, *words)
        assert (status, out) == (2, "")
        assert told in err
        assert len(err.splitlines()) == 1


def test_an_id_may_not_lead_out_of_the_folder(model, said, tmp_path, monkeypatch, capsys):
    named = [replace(said[0], id="../out"), replace(said[1], id="in/it"), replace(said[2], id="/x")]
    write_manifest(tmp_path / "said.jsonl", named)
    words = "transcribe", "--model", model, tmp_path / "said.jsonl", "--out", tmp_path / "here"
    status, _, err = asr(monkeypatch, capsys, *words)
    assert status == 1
    assert "its id '../out' leads out of --out; rename it" in err
    assert "its id '/x' leads out" in err
    assert "2 of 3 inputs failed" in err
    found = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.txt")]
    assert found == ["here/in/it.txt"]


def test_weights_are_tuned_for_adapted_nets(model, said, manifest, tmp_path, monkeypatch, capsys):
    shutil.copytree(model / "model", tmp_path / "model")
    seen = []

    def calibrate(utterances, log_probs, bundle):
        seen.append(log_probs)
        return {}, []

    monkeypatch.setattr("asr.recognize.tuning.calibrate", calibrate)
    words = "tune", manifest, "--model", tmp_path / "model"
    for options in ((), ("--adapt",)):
        status, out, err = asr(monkeypatch, capsys, *words, *options)
        assert (status, err) == (0, "")
        assert "beam+lexicon: " in out
    plain, again = seen
    assert plain.keys() == again.keys()
    assert all((plain[name] != again[name]).any() for name in plain)


def test_a_training_ends_with_both(tones, tmp_path):
    recipe, run = "recipes/demo/ctc.yaml", tmp_path / "run"
    results = train_tones(recipe, tones, run, "trainer.max_epochs=3", "trainer.adapt=true")
    titles = ["greedy", "beam", "beam+lm", "beam+lexicon"]
    both = [*titles, *(f"{title}+adapted" for title in titles)]
    assert list(results["decoders"]) == both
    assert {name: list(found) for name, found in results["sets"].items()} == {
        "dev": both,
        "test": both,
    }
    files = sorted(p.name for p in (run / "decoded").iterdir())
    assert files == sorted(f"{name}.{title}.jsonl" for name in ("dev", "test") for title in both)
    rates = results["sets"]["test"]
    assert rates["greedy+adapted"]["PER"] != rates["greedy"]["PER"]


def test_framewise_nets_are_not_adapted():
    with pytest.raises(InputError, match="nets are adapted by CTC"):
        load_config("recipes/demo/ctc.yaml", ["trainer.adapt=true", "loss=framewise"])
