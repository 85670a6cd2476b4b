"""What `import asr` gives: quick, typed, documented; the notebook that shows it."""

import io
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import asr
from asr.errors import InputError

CHECKOUT = Path(__file__).parents[1]
NOTEBOOKS = (CHECKOUT / "docs/notebooks").glob("*.ipynb")


@pytest.fixture(scope="module")
def recognizer(tone_run):
    return asr.Recognizer.load(tone_run, decoder="beam", lexicon="model")


@pytest.fixture(scope="module")
def spoken(tones):
    """A file and its words."""
    file = sorted(tones.glob("TEST/*/*/*.WAV"))[0]
    return file, file.with_suffix(".TXT").read_text().split(maxsplit=2)[2].strip()


def test_import_waits_for_nothing_heavy():
    code = (
        "import asr, sys; asr.Scores, asr.score, dir(asr)\n"
        "assert not {'torch', 'numba', 'numpy', 'soundfile'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_there_whatever_was_imported_before():
    code = (
        "import asr.score.read, asr.recognize.aligner, asr.decode.search.beam, inspect, asr\n"
        "from asr import *\n"
        "assert inspect.isfunction(score) and inspect.isfunction(align), (score, align)\n"
        "assert all(getattr(asr, name) is not None for name in asr.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(asr.__all__) <= set(dir(asr))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        asr.nothing  # noqa: B018


@pytest.mark.slow
def test_types_are_known_to_mypy(tmp_path):
    (tmp_path / "use.py").write_text(
        "import asr\n"
        "reveal_type(asr.score('a', 'b').error_rate)\n"
        "reveal_type(asr.Recognizer.load('x').transcribe('a.wav').words)\n"
        "reveal_type(asr.beam_search)\n"
    )
    # By the path, as for an installed package: only py.typed makes its types count.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "use.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert "float" in done.stdout, done.stdout + done.stderr
    assert "tuple[asr.types.Segment, ...]" in done.stdout
    assert "list[asr.types.Hypothesis]" in done.stdout
    assert (CHECKOUT / "asr/py.typed").exists()


def test_score_counts():
    scores = asr.score(["the cat sat", "hello", ""], ["a cat sat down", "hello", ""])
    counts = (scores.hits, scores.substitutions, scores.deletions, scores.insertions)
    assert counts == (3, 1, 0, 1)
    assert (scores.errors, scores.reference_length, scores.error_rate) == (2, 4, 0.5)
    assert (scores.utterances, scores.utterance_error_rate) == (3, 1 / 3)
    assert scores.policy == "words, as written"


def test_score_of_one_string_is_one_utterance():
    assert asr.score("the cat", "the cat").utterances == 1
    assert asr.score("ab", "ab c", unit="char").insertions == 2
    assert math.isnan(asr.score([], []).error_rate)


def test_one_way_of_normalising_needs_no_list():
    assert asr.score("A cat.", "a cat.", normalise="case").errors == 0


def test_score_by_sclites_rules():
    assert asr.score("THE { cat / dog } (uh)", "the dog", alignment="nist").errors == 0
    assert asr.score("The cat!", "the cat", normalise=["case", "punctuation"]).errors == 0


def test_score_folds_phones():
    scores = asr.score("h# ao pau", "aa", "phone", fold="timit39", silence="ignore")
    assert (scores.hits, scores.errors) == (1, 0)
    assert asr.score("h# ao", "aa", "phone", "nist", fold="timit39").deletions == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["a"], []), "1 references, but 0 hypotheses"),
        (("a", "a", "syllable"), "choose one of word, char, phone"),
        (("a", "a", "word", "best"), "choose one of edit, nist"),
        (("a", "a", "char", "nist"), "for words and phones"),
        (("{ a", "a", "word", "nist"), "reference 1"),
    ],
)
def test_score_refuses(arguments, says):
    with pytest.raises(InputError, match=says):
        asr.score(*arguments)


def test_score_refuses_what_is_for_other_units():
    with pytest.raises(InputError, match="are for phones"):
        asr.score("a", "a", fold="timit39")
    with pytest.raises(InputError, match="not for phones"):
        asr.score("aa", "aa", "phone", normalise=["case"])
    with pytest.raises(InputError, match=r"hypothesis 2.*'zz'"):
        asr.score(["aa", "aa"], ["aa", "zz"], "phone", fold="timit39")


def test_align_finds_the_words(recognizer, spoken, tone_run):
    file, text = spoken
    aligned = asr.align(recognizer, file, text)
    truth = [line.split() for line in file.with_suffix(".WRD").read_text().splitlines()]
    assert [word.label for word in aligned.words] == [label for _, _, label in truth]
    for word, (start, end, _) in zip(aligned.words, truth, strict=True):
        assert abs(word.start_s - int(start) / 16_000) < 0.08
        assert abs(word.end_s - int(end) / 16_000) < 0.08
    assert asr.align(tone_run, asr.load_audio(file), text).words == aligned.words
    phones = " ".join(label.label for label in aligned.labels)
    assert asr.align(recognizer, file, phones, unit="phone").words == ()


def test_align_refuses_unknown_words(recognizer, spoken):
    with pytest.raises(InputError, match="zebra"):
        asr.align(recognizer, spoken[0], "zebra")


def test_waveform_is_transcribed_as_its_file(recognizer, spoken):
    of_file = recognizer.transcribe(spoken[0])
    waveform = asr.load_audio(spoken[0])
    assert recognizer.transcribe(waveform).words == of_file.words
    assert recognizer.transcribe(waveform.astype(np.float64)).words == of_file.words
    reversed_view = waveform[::-1].copy()[::-1]
    assert recognizer.transcribe(reversed_view).words == of_file.words


def test_other_rates_bytes_and_open_files_are_transcribed_as_the_file(recognizer, spoken, tmp_path):
    of_file = recognizer.transcribe(spoken[0])
    for content in (spoken[0].read_bytes(), bytearray(spoken[0].read_bytes())):
        assert recognizer.transcribe(content).labels == of_file.labels
        assert recognizer.transcribe(io.BytesIO(content)).labels == of_file.labels
    with spoken[0].open("rb") as handle:
        assert recognizer.transcribe(handle).labels == of_file.labels
    waveform, rate = np.repeat(asr.load_audio(spoken[0]), 3), 48_000
    soundfile.write(tmp_path / "fast.wav", waveform, rate, subtype="FLOAT")
    of_file = recognizer.transcribe(tmp_path / "fast.wav")
    assert recognizer.transcribe(waveform, rate=rate).labels == of_file.labels


@pytest.mark.parametrize(
    ("audio", "rate", "says"),
    [
        (None, None, "found <class 'NoneType'>"),
        ([0.0, 0.1], None, "found <class 'list'>"),
        (io.StringIO("text"), None, "found text .open it with 'rb'."),
        (b"", None, "audio: the file is empty"),
        (b"no audio", None, "audio: not audio that can be read"),
        ("a.wav", 16_000, "rate 16000: is for an array"),
        (b"no audio", 16_000, "rate 16000: is for an array"),
        (np.zeros(1600, np.float32), 100, "rate 100: expected Hz in 8000..192000"),
        (np.zeros(1600, np.float32), 44100.5, "rate 44100.5: expected Hz"),
        (np.zeros(1600, np.float32), "16k", "rate '16k': expected Hz"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_line(recognizer, audio, rate, says):
    with pytest.raises(InputError, match=says):
        recognizer.transcribe(audio, rate=rate)


@pytest.mark.parametrize(
    ("waveform", "says"),
    [
        (np.zeros((2, 1600), np.float32), r"found \(2, 1600\) of float32"),
        (np.zeros(1600, np.int16), "of int16.*divide int16 by 32768"),
        (np.zeros(1600, complex), "of complex128"),
        (np.zeros(0, np.float32), "no samples"),
        (np.full(1600, np.nan, np.float32), "NaN or infinite"),
        (np.full(1600, 1e39), "NaN or infinite"),
        (np.full(1600, 300.0, np.float32), "reach 300"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_no_waveform_is_refused(recognizer, waveform, says):
    with pytest.raises(InputError, match=says):
        recognizer.transcribe(waveform)


def test_one_sample_is_transcribed(recognizer):
    assert recognizer.transcribe(np.zeros(1, np.float32)).duration_s == 1 / 16_000


@pytest.mark.parametrize("name", sorted(NOTEBOOKS), ids=lambda path: path.stem)
def test_notebook_runs(name, tones, tone_run, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    shutil.copytree(tone_run, tmp_path / "demo/run")
    shutil.copytree(tones, tmp_path / "demo/corpus")
    beside = tmp_path / "docs"  # as in a checkout, demo/ lies above
    beside.mkdir()
    client = nbclient.NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(beside)}}
    )
    client.execute()
    shown = [
        output.get("text", "") + "".join(output.get("data", {}))
        for cell in code
        for output in cell.outputs
        if output.get("name") != "stderr"
    ]
    assert any("image/png" in text for text in shown)
