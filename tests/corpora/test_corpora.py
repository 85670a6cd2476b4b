"""Corpora are found, counted, split as published and audited; what is wrong is told in one line."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fake_timit
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.read import load_audio, write_sphere
from asr.corpora import CORPORA, load_corpus
from asr.corpora.timit import CORE_TEST_SPEAKERS, DEV_SPEAKERS
from asr.corpora.timit_sample import HEADER, SPEAKERS, mended
from asr.corpora.tree import load_tree, read_segments
from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.labels import TIMIT_61_PHONES
from asr.types import Segment

SO762 = Path(__file__).parents[3] / "shared" / "data" / "so762"
NEED_SO762 = pytest.mark.skipif(not SO762.is_dir(), reason="so762 is not here")
TIMIT_SAMPLE = SO762.parent / "timit_sample"
NEED_TIMIT_SAMPLE = pytest.mark.skipif(not TIMIT_SAMPLE.is_dir(), reason="the sample is not here")
ASR = [sys.executable, "-c", "from asr.cli import main; main()"]


@pytest.fixture(scope="module")
def timit_root(tmp_path_factory):
    root = fake_timit.build(tmp_path_factory.mktemp("corpora"))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def small_timit(timit_root, tmp_path):
    """One speaker each of train, dev and core test, in a folder of its own."""
    root = tmp_path / "corpora" / "TIMIT"
    speakers = ["FAKS0", "MDAB0", next((timit_root / "TRAIN" / "DR1").iterdir()).name]
    for speaker in speakers:
        (folder,) = timit_root.glob(f"*/*/{speaker}")
        shutil.copytree(folder, root / folder.relative_to(timit_root))
    return root


def speaker_of(root, set_name):
    return next(path for path in sorted((root / set_name).glob("*/*")) if path.is_dir())


def check_timit(corpus):
    sets = corpus.sets
    assert {name: len(utterances) for name, utterances in sets.items()} == {
        "train": 3696,
        "dev": 400,
        "test": 192,
        "test_full": 1344,
    }
    speakers = {name: {u.speaker for u in utterances} for name, utterances in sets.items()}
    assert {name: len(s) for name, s in speakers.items()} == {
        "train": 462,
        "dev": 50,
        "test": 24,
        "test_full": 168,
    }
    assert speakers["dev"] == DEV_SPEAKERS
    assert speakers["test"] == CORE_TEST_SPEAKERS
    assert not speakers["train"] & speakers["test_full"]
    assert not speakers["dev"] & speakers["test"]
    assert not any(re.search("_sa", u.id) for utterances in sets.values() for u in utterances)
    phones = {name: [p.label for u in us for p in u.phones] for name, us in sets.items()}
    assert len(phones["test"]) == 7333
    assert phones["test"].count("q") == 118
    assert len(phones["dev"]) - phones["dev"].count("q") == 15057
    assert set(phones["train"]) == set(TIMIT_61_PHONES)
    assert (corpus.audit.found, corpus.audit.used) == (6300, 5040)
    assert list(corpus.audit.dropped.values()) == [1260]
    assert not corpus.audit.deviations
    assert not corpus.audit.missing
    assert not corpus.audit.corrupt
    assert not corpus.audit.stray


def test_timit_upper_case_sphere(timit_root):
    corpus = load_corpus("timit", timit_root)
    check_timit(corpus)
    utterance = next(u for u in corpus.sets["dev"] if u.id == "faks0_si640")
    base = utterance.audio.with_suffix("")
    assert utterance.audio.name == "SI640.WAV"
    assert utterance.duration_s == len(load_audio(utterance.audio)) / 16000
    lines = [line.split() for line in base.with_suffix(".PHN").read_text().splitlines()]
    assert utterance.phones == tuple(
        Segment(label, int(start) / 16000, int(end) / 16000) for start, end, label in lines
    )
    assert utterance.text.startswith("she had your dark suit")
    assert [w.label for w in utterance.words] == utterance.text.split()


def test_timit_lower_case_with_riff_copies(tmp_path):
    root = fake_timit.build(tmp_path, upper=False, riff=True)
    corpus = load_corpus("timit", tmp_path)
    check_timit(corpus)
    assert corpus.root == root
    assert all(u.audio.name.count(".wav") == 1 for u in corpus.sets["train"])
    shutil.rmtree(root)


def test_timit_split_lists():
    assert (len(DEV_SPEAKERS), len(CORE_TEST_SPEAKERS)) == (50, 24)
    assert sum(s[0] == "f" for s in CORE_TEST_SPEAKERS) == 8
    assert not DEV_SPEAKERS & CORE_TEST_SPEAKERS


@pytest.mark.parametrize("path", [".", "TRAIN", "..", "../.."])
def test_timit_root_is_found_nearby(small_timit, path):
    corpus = load_corpus("timit", small_timit / path)
    assert corpus.root.resolve() == small_timit
    assert [len(us) for us in corpus.sets.values()] == [8, 8, 8, 16]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A sample of TIMIT in NLTK's layout, made of the fake one's files."""
    return fake_timit.build_sample(tmp_path_factory.mktemp("nltk"))


@pytest.mark.parametrize("where", [".", ".."])
def test_timit_sample_is_dealt_by_speaker(sample, where):
    corpus = load_corpus("timit", sample / where)
    assert corpus.root.resolve() == sample
    assert (corpus.audit.found, corpus.audit.used) == (160, 160)
    told = corpus.audit.deviations
    assert len(told) == 1
    assert "not TIMIT's: error rates cannot be compared" in told[0]
    tested = []
    for mark in ("", "2", "3", "4"):
        of = {name: corpus.sets[name + mark] for name in ("train", "dev", "test", "test_sa")}
        assert [len(us) for us in of.values()] == [110, 8, 32, 8]
        speakers = {name: {u.speaker for u in us} for name, us in of.items()}
        assert speakers["test"] == speakers["test_sa"]
        assert sorted(s[0] for s in speakers["test"]) == ["f", "f", "m", "m"]
        assert not speakers["train"] & (speakers["dev"] | speakers["test"])
        assert {u.id.split("_")[1] for u in of["test_sa"]} == {"sa1", "sa2"}
        assert not any("_sa" in u.id for u in of["test"])
        tested += sorted(speakers["test"])
    assert sorted(tested) == sorted(SPEAKERS)


def test_timit_sample_tells_what_it_lacks(sample, tmp_path):
    root = tmp_path / "sample"
    shutil.copytree(sample, root)
    (root / "dr1-faem0").rename(root / "dr1-fxxx0")
    (root / "dr1-fvmh0" / "sa1.phn").unlink()
    (root / "dr1-fvmh0" / "notes.doc").touch()
    audit = load_corpus("timit", root).audit
    assert [Path(p).name for p in audit.missing] == ["sa1.phn"]
    assert [Path(p).name for p in audit.stray] == ["notes.doc"]
    assert audit.deviations[1:] == [
        "159 utterances, the sample has 160",
        "speakers: no utterance of faem0",
        "speakers: unknown: fxxx0",
    ]


def test_timit_sample_names_recordings_that_lost_bytes(sample, tmp_path):
    root = tmp_path / "sample"
    shutil.copytree(sample, root)
    path = root / "dr1-fvmh0" / "sa1.wav"
    original = path.read_bytes()
    n_samples = (len(original) - HEADER) // 2
    samples = (5000 * np.sin(np.arange(n_samples) * 0.02)).astype("<i2")
    at = n_samples // 3
    samples[at] = 0x0A0D  # the bytes CR LF
    samples[at - 3 : at + 4] = samples[at]
    whole = samples.tobytes()
    lost = whole.replace(b"\r\n", b"\n", 1)
    assert len(lost) == len(whole) - 1
    path.write_bytes(original[:HEADER] + lost + b"\0")
    told = load_corpus("timit", root).audit.deviations
    assert len(told) == 2
    assert told[1].startswith("recordings that have lost bytes and are noise from there on: 1 (")
    assert told[1].endswith(": dr1-fvmh0/sa1.wav")
    back, n_lost = mended(lost)
    assert n_lost == 1
    assert back == whole


@NEED_TIMIT_SAMPLE
def test_timit_sample_is_whole():
    audit = load_corpus("timit", TIMIT_SAMPLE).audit
    assert (audit.found, audit.used) == (160, 160)
    assert audit.missing == audit.corrupt == audit.stray == {}
    assert all("have lost bytes" in line for line in audit.deviations[1:])


def test_timit_deviations_are_told(small_timit):
    told = load_corpus("timit", small_timit).audit.deviations
    assert told[0].startswith("train: 8 utterances, TIMIT has 3696")
    assert any(re.match(r"test: \d+ phones without q, TIMIT has 7215", line) for line in told)
    assert any("no utterance of" in line and "mwbt0" in line for line in told)


def test_timit_audit(small_timit):
    folder = speaker_of(small_timit, "TRAIN")
    (folder / "SX1.PHN").unlink()
    (folder / "SX91.WAV").unlink()
    (folder / "SX181.TXT").unlink()
    (folder / "SX271.PHN").write_text("0 100 h#\n100 two s\n")
    (folder / "SI10.PHN").write_text("0 100 h#\n100 99999 s\n")
    (folder / "SX361.WAV").write_bytes((folder / "SX361.WAV").read_bytes()[:1200])
    (folder / "SI640.PHN").write_text("0 100 h#\n100 200 xx\n")
    (folder / "._SX1.WAV").touch()
    (folder / "SX9.bak").touch()
    (folder / "SX2_copy.WAV").touch()
    (folder.parent / "notes.txt").touch()
    (folder / "more").mkdir()
    corpus = load_corpus("timit", small_timit)
    audit = corpus.audit
    assert [u.id.split("_")[1] for u in corpus.sets["train"]] == ["si1270"]
    assert {Path(p).name for p in audit.missing} == {"sx1.phn", "sx91.wav", "sx181.txt"}
    corrupt = {Path(p).name: reason for p, reason in audit.corrupt.items()}
    assert "line 2: expected 'start end label'" in corrupt["SX271.PHN"]
    assert "line 2: ends at 6.250 s, but the audio at" in corrupt["SI10.PHN"]
    assert "line 2: phone 'xx' is not one of" in corrupt["SI640.PHN"]
    assert "truncated" in corrupt["SX361.WAV"]
    assert len(corrupt) == 4
    assert {Path(p).name for p in audit.stray} == {
        "._SX1.WAV",
        "SX9.bak",
        "SX2_copy.WAV",
        "notes.txt",
        "more",
    }
    assert audit.found == 30
    assert audit.used == 17


def test_timit_falls_back_to_the_riff_copy(small_timit):
    audio = speaker_of(small_timit, "TRAIN") / "SX1.WAV"
    soundfile.write(f"{audio}.wav", load_audio(audio), 16000, "PCM_16")
    audio.write_bytes(b"broken")
    corpus = load_corpus("timit", small_timit)
    assert corpus.audit.used == 24
    (utterance,) = (u for u in corpus.sets["train"] if u.id.endswith("_sx1"))
    assert utterance.audio.name == "SX1.WAV.wav"
    assert list(corpus.audit.corrupt) == [str(audio)]


def test_timit_test_speaker_in_train_is_fatal(small_timit):
    (folder,) = small_timit.glob("TEST/*/MDAB0")
    shutil.move(folder, small_timit / "TRAIN" / "DR1")
    with pytest.raises(InputError, match="must not be in TRAIN"):
        load_corpus("timit", small_timit)


def test_speaker_in_two_sets_is_fatal(small_timit):
    shutil.copytree(speaker_of(small_timit, "TRAIN"), small_timit / "TEST" / "DR1" / "FXXX0")
    shutil.copytree(speaker_of(small_timit, "TRAIN"), small_timit / "TRAIN" / "DR1" / "fxxx0")
    with pytest.raises(InputError, match=r"speaker fxxx0 is in T.* too"):
        load_corpus("timit", small_timit)


def test_empty_set_is_fatal(small_timit):
    for path in small_timit.glob("TEST/*/MDAB0/*.PHN"):
        path.unlink()
    with pytest.raises(InputError, match=r"set test of this timit corpus has no usable utterance"):
        load_corpus("timit", small_timit)


@pytest.mark.parametrize("kind", sorted(CORPORA))
def test_wrong_root_names_what_was_looked_for(tmp_path, kind):
    looked_for = {"kaldi": "wav.scp", "librispeech": "trans.txt", "jsonl": "jsonl"}
    looked_for |= {"streamed": "jsonl", "webdataset": ".tar", "folder": "no audio in this"}
    looked_for |= {"table": ".csv"}
    (tmp_path / "docs").mkdir()
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            load_corpus(kind, root)
        assert str(caught.value).startswith(f"{root}: ")
        assert "\n" not in str(caught.value)
        if root == tmp_path:
            assert looked_for.get(kind, "TRAIN and") in str(caught.value)


def test_two_corpora_below_the_root(small_timit):
    shutil.copytree(small_timit, small_timit.parent / "other")
    with pytest.raises(InputError, match="holds several corpora"):
        load_corpus("timit", small_timit.parent)


def test_unknown_kind():
    with pytest.raises(InputError, match="'timmit' does not exist; choose one of timit, so762"):
        load_corpus("timmit", Path())


lines = st.tuples(st.integers(-9, 9999), st.integers(-9, 9999), st.text(max_size=3))


@settings(deadline=None)
@given(st.lists(lines.map(lambda line: " ".join(map(str, line)))) | st.lists(st.text()))
def test_labels_are_in_order_and_within_the_audio_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.phn"
        path.write_text("\n".join(content), encoding="utf-8")
        try:
            segments = read_segments(path, 0.5)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return
    times = [(s.start_s, s.end_s) for s in segments]
    assert all(0 <= start_s <= end_s <= 0.5 for start_s, end_s in times)
    assert times == sorted(times, key=lambda t: t[0])


def test_times_are_samples_of_the_audio(tmp_path):
    rng = np.random.default_rng(0)
    for rate in (8_000, 16_000):
        folder = tmp_path / str(rate) / "TRAIN/DR1/ANN"
        folder.mkdir(parents=True)
        write_sphere(folder / "U1.WAV", rng.integers(-99, 99, rate).astype(np.int16), rate)
        (folder / "U1.PHN").write_text(f"0 {rate // 4} h#\n{rate // 4} {rate} aa\n")
        for name in ("DEV", "TEST"):
            (tmp_path / str(rate) / name).mkdir()
        (utterance,) = load_tree(tmp_path / str(rate), lambda items: items).sets["train"]
        assert utterance.phones == (Segment("h#", 0.0, 0.25), Segment("aa", 0.25, 1.0))


def check_so762(corpus):
    counts = {
        name: (len(us), len({u.speaker for u in us}), sum(len(u.words) for u in us))
        for name, us in corpus.sets.items()
    }
    assert counts == {"train": (1133, 64, 7926), "dev": (114, 7, 804), "test": (669, 35, 4805)}
    silences = ("h#", "pau")
    assert [
        sum(p.label not in silences for u in us for p in u.phones) for us in corpus.sets.values()
    ] == [23839, 2373, 14637]
    assert not corpus.audit.deviations
    assert corpus.audit.used == 1916


@NEED_SO762
def test_so762():
    corpus = load_corpus("so762", SO762)
    check_so762(corpus)
    (utterance,) = (u for u in corpus.sets["dev"] if u.id == "f0594_005940019")
    assert utterance.text == "i could take no more of the face of"
    assert utterance.words[0] == Segment("i", 0.3, 0.45)


@NEED_SO762
def test_so762_unpacked_into_sphere(tmp_path):
    """A dev speaker's FLAC files become SPHERE; the same utterances and samples are found."""
    for part in ("DEV", "TRAIN", "TEST"):
        source = sorted((SO762 / part / "DR1").iterdir())[0]
        target = tmp_path / part / "DR1" / source.name
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.suffix == ".flac":
                samples, rate = soundfile.read(path, dtype="int16")
                write_sphere(target / f"{path.stem}.WAV", samples, rate)
            else:
                shutil.copy(path, target)
    shutil.copy(SO762 / "phones.txt", tmp_path)
    unpacked = load_corpus("so762", tmp_path)
    packed = {u.id: u for us in load_corpus("so762", SO762).sets.values() for u in us}
    assert not unpacked.audit.corrupt
    assert unpacked.audit.deviations[1].startswith("dev: ")
    for utterance in unpacked.sets["dev"]:
        twin = packed[utterance.id]
        assert (utterance.text, utterance.words, utterance.phones, utterance.duration_s) == (
            (twin.text, twin.words, twin.phones, twin.duration_s)
        )
        assert (load_audio(utterance.audio) == load_audio(twin.audio)).all()


def test_phones_are_checked_against_the_corpus_inventory(small_timit):
    (folder,) = small_timit.glob("TEST/*/FAKS0")
    shutil.move(folder, small_timit / "DEV" / "DR1" / "FAKS0")
    (small_timit / "phones.txt").write_text("\n".join(p for p in TIMIT_61_PHONES if p != "zh"))
    corpus = load_corpus("synthetic", small_timit)
    assert list(corpus.sets) == ["train", "dev", "test"]
    assert corpus.audit.used < corpus.audit.found == 30
    assert all("phone 'zh' is not one of" in reason for reason in corpus.audit.corrupt.values())


def sound(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(-999, 999, int(16000 * seconds)).astype(np.int16)
    soundfile.write(path, noise, 16000)


@pytest.fixture
def kaldi(tmp_path):
    folder = tmp_path / "data" / "train"
    sound(tmp_path / "wav" / "a.wav", 2.0)
    sound(tmp_path / "wav" / "b.flac", 1.0)
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text(f"recA wav/a.wav\nrecB {tmp_path}/wav/b.flac\n")
    (folder / "segments").write_text("a1 recA 0.0 0.75\na2 recA 0.75 -1\nb1 recB 0.25 1.0\n")
    (folder / "text").write_text("a1 HELLO  world\na2\nb1 good bye\n")
    (folder / "utt2spk").write_text("a1 ann\na2 ann\nb1 bob\n")
    return folder


def test_kaldi(kaldi):
    for root in (kaldi, kaldi.parent):
        corpus = load_corpus("kaldi", root)
        assert [
            (u.id, u.audio.name, u.speaker, u.offset_s, u.duration_s, u.text)
            for u in corpus.sets["train"]
        ] == [
            ("a1", "a.wav", "ann", 0.0, 0.75, "HELLO world"),
            ("a2", "a.wav", "ann", 0.75, 1.25, ""),
            ("b1", "b.flac", "bob", 0.25, 0.75, "good bye"),
        ]
        assert corpus.sets["train"][0].audio.exists()


def test_kaldi_without_segments(kaldi):
    for name in ("segments", "text", "utt2spk"):
        (kaldi / name).unlink()
    utterances = load_corpus("kaldi", kaldi).sets["train"]
    assert [(u.id, u.speaker, u.duration_s, u.text) for u in utterances] == [
        ("recA", "recA", 2.0, None),
        ("recB", "recB", 1.0, None),
    ]


def test_kaldi_audit(kaldi):
    (kaldi / "text").write_text("a1 x\nb1 y\nc1 z\n")
    (kaldi.parents[1] / "wav" / "b.flac").unlink()
    audit = load_corpus("kaldi", kaldi).audit
    assert list(audit.missing.values()) == [
        "no such file; expected audio",
        "no line for utterance a2",
    ]
    assert list(audit.stray) == ["train/text (c1)"]
    assert (audit.found, audit.used) == (3, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wav.scp", "recA wav/a.wav\nrecB sph2pipe -f wav b.sph |\n", "wav.scp:2: audio from a"),
        ("wav.scp", "recA\n", "wav.scp:1: expected 'recording path-of-audio'"),
        ("wav.scp", "recA raw.ark:12\n", "wav.scp:1: expected 'recording path-of-audio'"),
        ("wav.scp", "recA a.wav\nrecA b.wav\n", "wav.scp:2: recA was already listed"),
        ("wav.scp", "\n", "wav.scp: is empty"),
        ("segments", "a1 recA 0 x\n", "segments:1: expected 'utterance recording start end'"),
        ("segments", "a1 recZ 0 1\n", "segments:1: recording recZ is not in wav.scp"),
        ("segments", "a1 recA 2 1\n", "segments:1: a segment cannot go from 2 s to 1 s"),
        ("segments", "a1 recA 0 nan\n", "segments:1: a segment cannot go"),
        ("segments", "a1 recA 5 9\n", "no usable utterance"),
    ],
)
def test_kaldi_bad_tables(kaldi, name, content, message):
    (kaldi / name).write_text(content)
    with pytest.raises(InputError) as caught:
        load_corpus("kaldi", kaldi)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def librispeech(tmp_path):
    root = tmp_path / "LibriSpeech"
    for set_name, speaker in (("train-clean-100", "19"), ("dev-clean", "84")):
        chapter = root / set_name / speaker / "198"
        for i in range(2):
            sound(chapter / f"{speaker}-198-000{i}.flac")
        (chapter / f"{speaker}-198.trans.txt").write_text(
            f"{speaker}-198-0000 CHAPTER ONE\n{speaker}-198-0001 DON'T GO\n"
        )
    (root / "README.TXT").touch()
    return root


def test_librispeech(librispeech):
    for root in (librispeech, librispeech.parent):
        corpus = load_corpus("librispeech", root)
        assert {name: len(us) for name, us in corpus.sets.items()} == {
            "dev-clean": 2,
            "train-clean-100": 2,
        }
        utterance = corpus.sets["train-clean-100"][1]
        assert (utterance.id, utterance.speaker, utterance.text, utterance.duration_s) == (
            ("19-198-0001", "19", "don't go", 1.0)
        )
        assert corpus.root == librispeech
    assert list(load_corpus("librispeech", librispeech / "dev-clean").sets) == ["dev-clean"]


def test_librispeech_audit(librispeech):
    chapter = librispeech / "dev-clean" / "84" / "198"
    sound(chapter / "84-198-0007.flac")
    (chapter / "84-198-0000.flac").unlink()
    audit = load_corpus("librispeech", librispeech).audit
    assert {Path(p).name for p in audit.missing} == {"84-198-0007.flac", "84-198-0000.flac"}
    assert (audit.found, audit.used) == (5, 3)
    path = chapter / "84-198-0001.flac"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InputError, match=r"dev-clean .* no usable utterance .*truncated"):
        load_corpus("librispeech", librispeech)


def test_jsonl(tmp_path):
    sound(tmp_path / "a.wav")
    (tmp_path / "train.jsonl").write_text(
        '{"audio_filepath": "a.wav", "duration": 0.5, "text": "a"}\n'
        '{"audio_filepath": "a.wav", "duration": 0.5, "offset": 0.5, "text": "b"}\n'
        '{"audio_filepath": "a.wav", "duration": 5.0, "id": "long", "text": "c"}\n'
        '{"audio_filepath": "b.wav", "duration": 0.5, "text": "d"}\n'
        '{"audio_filepath": "a.wav", "duration": 0.5, "id": "nul\\u0000"}\n'
    )
    for root in (tmp_path, tmp_path / "train.jsonl"):
        corpus = load_corpus("jsonl", root)
        assert [u.id for u in corpus.sets["train"]] == ["a", "a-0000500"]
        assert list(corpus.audit.missing) == [str(tmp_path / "b.wav")]
        lost = [f"{tmp_path / 'train.jsonl'}:5", f"{tmp_path / 'a.wav'} (long)"]
        assert list(corpus.audit.corrupt) == lost
        assert (corpus.audit.found, corpus.audit.used) == (5, 2)


def run_prepare(*arguments):
    return subprocess.run(
        [*ASR, "prepare", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_prepare_writes_manifests_and_an_audit(small_timit, tmp_path):
    (speaker_of(small_timit, "TRAIN") / "SX1.PHN").unlink()
    out = tmp_path / "out"
    done = run_prepare("timit", small_timit, out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "audit.json",
        "dev.jsonl",
        "test.jsonl",
        "test_full.jsonl",
        "train.jsonl",
    ]
    sets = load_corpus("timit", small_timit).sets
    assert read_manifest(out / "train.jsonl") == sets["train"]
    audit = json.loads((out / "audit.json").read_text())
    assert (audit["found"], audit["used"]) == (30, 23)
    assert "warning: train: 7 utterances, TIMIT has 3696" in done.stderr
    assert "1 files missing" in done.stderr
    assert re.search(r"test_full\W+16\W+2\W", done.stdout)


def test_prepare_of_a_wrong_root_is_one_line(tmp_path):
    done = run_prepare("timit", tmp_path, tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert not (tmp_path / "out").exists()


def test_prepare_into_a_file_is_one_line(small_timit, tmp_path):
    (tmp_path / "out").touch()
    done = run_prepare("timit", small_timit, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
