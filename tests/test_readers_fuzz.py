"""The readers of audio, corpora, models and recipes on spoilt files."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fuzzing import mutated, peak_bytes, survives
from tones import tone

from asr.audio.read import audio_blocks, audio_duration_s, load_audio, sphere_bytes
from asr.corpora.audit import Audit
from asr.corpora.jsonl import load_jsonl
from asr.corpora.kaldi import load_kaldi
from asr.corpora.own.annotations import READERS as TIERS
from asr.corpora.own.folder import load_folder
from asr.corpora.tree import Entry, phones_of, read_entries, read_segments
from asr.data.index import index_manifest
from asr.data.manifest import read_manifest
from asr.decode.lexicon import Lexicon
from asr.errors import InputError
from asr.labels import CMU_40, Labels
from asr.lm.ngram import NGram
from asr.model.weights import load_bundle
from asr.recognize.transcripts import FORMATS
from asr.train.recipe import load_config, read_config
from asr.types import Segment, Transcript

SAMPLES = tone("aa", 900, np.random.default_rng(0))
AUDIO = {
    "wav": ("WAV", "PCM_16"),
    "wavex": ("WAVEX", "PCM_24"),
    "float": ("WAV", "FLOAT"),
    "ulaw": ("WAV", "ULAW"),
    "adpcm": ("WAV", "IMA_ADPCM"),
    "flac": ("FLAC", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "nist": ("NIST", "PCM_16"),
}
ARPA = b"""\
\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-2.1\t<unk>
-99\t<s>\t-0.30103
-0.6\t</s>
-0.7\tcat\t-0.2
-0.8\tm\xc3\xbcde\t-0.1

\\2-grams:
-0.4\t<s> cat
-0.5\tcat m\xc3\xbcde
-0.3\tm\xc3\xbcde </s>

\\end\\
"""
LEXICON = b"cat\tk ae t\ncat\tk ah t\nm\xc3\xbcde m y d ah\n\n"
MANIFEST = (
    b'{"audio_filepath": "a.wav", "duration": 1.5, "text": "the cat"}\n'
    b'{"id": "u2", "audio_filepath": "b/a.wav", "offset": 0.5, "duration": 2, "speaker": "ann", '
    b'"text": "m\\u00fcde", "words": [["m\xc3\xbcde", 0.1, 0.7]], "phones": ["m", ["y", 0, 1]]}\n'
)
LABELS = Labels("phone", ("<blank>", *dict.fromkeys(CMU_40.values())))


def audio_bytes(name, channels=1, rate=16_000):
    container, coding = AUDIO[name]
    out = io.BytesIO()
    samples = np.repeat(SAMPLES[:, None], channels, 1)
    soundfile.write(out, samples, rate, format=container, subtype=coding)
    return out.getvalue()


def audio_seeds():
    seeds = [sphere_bytes((SAMPLES * 32767).astype(np.int16), 16_000)]
    for name in AUDIO:
        if AUDIO[name][0] in soundfile.available_formats():
            seeds += [audio_bytes(name), audio_bytes(name, 2, 8_000)]
    return seeds


class Audio:
    def __init__(self, folder):
        self.path = folder / "spoilt.snd"
        self.seeds = audio_seeds()

    def read(self, data):
        self.path.write_bytes(data)
        for read in (
            lambda: load_audio(self.path),
            lambda: load_audio(self.path, 8_000, 0.01, 0.02, data),
            lambda: list(audio_blocks(self.path, block_s=0.01)),
            lambda: audio_duration_s(self.path),
        ):
            survives(read)
        waveform = load_audio(self.path)
        assert waveform.dtype == np.float32
        assert waveform.ndim == 1
        assert len(waveform) > 0
        assert np.abs(waveform).max() <= 1


class Arpa:
    seeds = (ARPA,)

    def __init__(self, folder):
        self.path = folder / "spoilt.arpa"

    def read(self, data):
        self.path.write_bytes(data)
        lm = NGram.read_arpa(self.path)
        assert not np.isnan(lm.score(["cat", "müde", "dog"]))
        again = self.path.with_name("again.arpa")
        lm.write_arpa(again)
        assert NGram.read_arpa(again).tokens == lm.tokens


class GzippedArpa:
    def __init__(self, folder):
        import gzip

        self.path = folder / "spoilt.arpa.gz"
        self.seeds = [gzip.compress(ARPA)]

    def read(self, data):
        self.path.write_bytes(data)
        NGram.read_arpa(self.path)


class Lexicons:
    seeds = (LEXICON,)

    def __init__(self, folder):
        self.path = folder / "lexicon.txt"

    def read(self, data):
        self.path.write_bytes(data)
        for folding in ("none", "cmu40"):
            found = Lexicon.read(self.path, LABELS, folding)
            assert len(found.words) == len(found.spellings) > 0
            assert found.tree.most_ways > 0


class Manifests:
    seeds = (MANIFEST,)

    def __init__(self, folder):
        self.path = folder / "spoilt.jsonl"

    def read(self, data):
        self.path.write_bytes(data)
        survives(lambda: list(index_manifest(self.path, lambda line: None)))
        survives(lambda: load_jsonl(self.path, lambda items: items))
        for utterance in read_manifest(self.path):
            assert utterance.id
            assert utterance.duration_s > 0


class Kaldi:
    seeds = (
        b"r1 r1.wav\nr2 r2.wav\n",
        b"u1 r1 0.01 0.05\nu2 r2 0 -1\n",
        b"u1 the cat\nu2 m\xc3\xbcde\n",
        b"u1 ann\nu2 bob\n",
    )

    def __init__(self, folder):
        self.folder = folder / "data"
        self.folder.mkdir()
        for name in ("r1.wav", "r2.wav"):
            (self.folder / name).write_bytes(audio_bytes("wav"))

    def read(self, data):
        names = ("wav.scp", "segments", "text", "utt2spk")
        for spoilt in names:
            for name, seed in zip(names, self.seeds, strict=True):
                (self.folder / name).write_bytes(data if name == spoilt else seed)
            survives(lambda: load_kaldi(self.folder, lambda items: items))


class Sidecars:
    seeds = (
        b"0 300 h#\n300 700 aa\n700 900 h#\n",
        b"300 700 ma\n",
        b"0 900 He said: m\xc3\xbcde, a.m.\n",
        b"aa\nh#\n",
    )

    def __init__(self, folder):
        self.folder = folder
        (folder / "u.wav").write_bytes(audio_bytes("wav"))

    def read(self, data):
        kinds = ("phn", "wrd", "txt")
        (self.folder / "phones.txt").write_bytes(data)
        survives(lambda: phones_of(self.folder))
        for spoilt in kinds:
            files = {kind: self.folder / f"u.{kind}" for kind in (*kinds, "wav")}
            for kind, seed in zip(kinds, self.seeds[:3], strict=True):
                files[kind].write_bytes(data if kind == spoilt else seed)
            entry = Entry("train", "ann", "u", self.folder, files)
            read_entries([entry], {"aa", "h#"}, Audit(), lambda items: items)


class Annotations:
    """Beside a recording, one of each kind."""

    def __init__(self, folder):
        self.folder = folder / "recordings"
        self.folder.mkdir()
        (self.folder / "u.wav").write_bytes(audio_bytes("wav"))
        said = (Segment("ma", 0.01, 0.03), Segment('m"üde', 0.03, 0.05))
        transcript = Transcript("u", "", 0.06, 0.0, said, said, unit="phone")
        names = ("textgrid", "eaf", "ctm", "srt", "vtt")
        self.seeds = [FORMATS[name].write(transcript).encode() for name in names]
        self.seeds.append(self.seeds[0].decode().encode("utf-16"))
        self.seeds.append(b"he said: m\xc3\xbcde\n")

    def read(self, data):
        for suffix in (*TIERS, ".lab"):
            path = self.folder / f"u{suffix}"
            path.write_bytes(data)
            survives(lambda: load_folder(self.folder, lambda items: items))
            path.unlink()


class Models:
    """Files of a model directory, one of them spoilt."""

    def __init__(self, folder, model):
        self.whole = {p.name: p.read_bytes() for p in sorted(model.iterdir()) if p.is_file()}
        self.folder = folder / "model"
        shutil.copytree(model, self.folder)
        self.seeds = [self.whole["config.json"], self.whole["labels.txt"]]
        # The header of the weights; behind it there are only numbers.
        self.head = 8 + int.from_bytes(self.whole["weights.safetensors"][:8], "little")
        self.seeds.append(self.whole["weights.safetensors"][: self.head])

    def read(self, data):
        weights = data + self.whole["weights.safetensors"][self.head :]
        for name, content in (
            ("config.json", data),
            ("labels.txt", data),
            ("weights.safetensors", weights),
        ):
            (self.folder / name).write_bytes(content)
            survives(lambda: load_bundle(self.folder))
            (self.folder / name).write_bytes(self.whole[name])


class Recipes:
    def __init__(self, folder):
        self.path = folder / "spoilt.yaml"
        recipe = Path(__file__).parents[1] / "recipes/demo/ctc.yaml"
        self.resolved = load_config("recipes/demo/ctc.yaml", ["run_dir=x"])[1].encode()
        self.seeds = [recipe.read_bytes(), self.resolved]

    def read(self, data):
        self.path.write_bytes(data)
        survives(lambda: read_config(self.path))
        load_config(str(self.path), ["run_dir=x"])


#: Readers with how many spoilt files they get: every time, and once in a long while.
READERS = {
    "audio": (Audio, 150, 30_000),
    "arpa": (Arpa, 150, 25_000),
    "gzipped arpa": (GzippedArpa, 100, 10_000),
    "lexicon": (Lexicons, 150, 25_000),
    "manifest": (Manifests, 100, 6_000),
    "kaldi": (Kaldi, 15, 1_000),
    "sidecars": (Sidecars, 30, 1_500),
    "annotations": (Annotations, 100, 3_000),
    "model": (Models, 20, 1_000),
    "recipe": (Recipes, 10, 500),
}


EVERY_READER = pytest.mark.parametrize(
    ("reader", "name"), zip(READERS, READERS, strict=True), indirect=["reader"], ids=READERS
)


@pytest.fixture
def reader(request, tmp_path):
    kind = READERS[request.param][0]
    if kind is Models:
        return Models(tmp_path, request.getfixturevalue("tone_run") / "model")
    return kind(tmp_path)


@pytest.mark.parametrize(
    ("reader", "name"), zip(READERS, READERS, strict=True), indirect=["reader"]
)
def test_spoilt_files_are_read_or_refused(reader, name):
    for data in [*reader.seeds, *mutated(reader.seeds, n=READERS[name][1], seed=1)]:
        survives(lambda data=data: reader.read(data))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "name"), zip(READERS, READERS, strict=True), indirect=["reader"]
)
def test_a_hundred_thousand_spoilt_files(reader, name):
    n = READERS[name][2]
    survives(lambda: reader.read(reader.seeds[0]))
    before = peak_bytes()
    n_read = sum(
        survives(lambda data=data: reader.read(data)) for data in mutated(reader.seeds, n, seed=2)
    )
    assert n_read > n // 100
    assert peak_bytes() - before < 500 << 20


@pytest.mark.parametrize("name", AUDIO)
def test_audio_cut_short_is_refused(tmp_path, name):
    path = tmp_path / "cut.snd"
    data = audio_bytes(name)
    path.write_bytes(data)
    assert len(load_audio(path)) >= len(SAMPLES)
    path.write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(InputError):
        load_audio(path)


def test_millions_of_empty_chunks_are_no_hang(tmp_path):
    path = tmp_path / "a.wav"
    with path.open("wb") as out:
        out.write(b"RIFF\xff\xff\xff\x7fWAVE")
        os.truncate(path, 1 << 30)
    assert not survives(lambda: load_audio(path))


def test_messages_are_one_line_that_can_be_printed():
    error = InputError("a\nb\x1b[2J: " + "x" * 100_000 + " end")
    assert str(error).startswith("a\\nb\\x1b[2J: xxx")
    assert str(error).endswith("x end")
    assert len(str(error)) < 1000
    assert str(InputError("müde: 日本, expected x")) == "müde: 日本, expected x"


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 400, "²"])
def test_numbers_that_python_does_not_read(tmp_path, number):
    (tmp_path / "u.wav").write_bytes(audio_bytes("wav"))
    arpa = Arpa(tmp_path)
    assert not survives(lambda: arpa.read(ARPA.replace(b"1=5", f"1={number}".encode())))
    assert not survives(lambda: arpa.read(ARPA.replace(b"ngram 1", f"ngram {number}".encode())))
    labels = tmp_path / "u.phn"
    labels.write_text(f"0 {number} h#\n")
    assert not survives(lambda: read_segments(labels, 1.0))


def test_recipe_that_is_no_yaml(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("defaults:\n  - base\nseed: : 1\n")
    with pytest.raises(InputError, match=r"bad\.yaml.*mapping values .* line 3"):
        load_config(str(path), ["run_dir=x"])
    path.write_text("seed: 1\n")
    with pytest.raises(InputError, match="must begin with 'base'"):
        load_config(str(path), ["run_dir=x"])
    path.write_text("defaults:\n  - base\n  - _self_\nmodel:\n  dropout: much\n")
    with pytest.raises(InputError, match=r"dropout.*'much'"):
        load_config(str(path), ["run_dir=x"])
