"""Every command of docs/own-data.md, on a small folder of recordings."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from praatio import textgrid
from pympi import Elan
from running import SMALL

from asr.audio.read import load_audio
from asr.corpora import load_corpus
from asr.recognize.transcripts import FORMATS
from asr.types import Transcript

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
SPEAKERS = ("anna", "bert", "carl")


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def place(tones, tone_run, tmp_path_factory):
    """Recordings of three speakers with TextGrids of words, a lexicon, and a model."""
    folder = tmp_path_factory.mktemp("own")
    said = load_corpus("synthetic", tones).sets["train"][:24]
    for number, utterance in enumerate(said):
        home = folder / "recordings" / SPEAKERS[number % 3]
        home.mkdir(parents=True, exist_ok=True)
        soundfile.write(home / f"u{number}.wav", load_audio(utterance.audio), 16_000)
        transcript = Transcript("u", "", utterance.duration_s, 0.0, (), utterance.words)
        (home / f"u{number}.TextGrid").write_text(FORMATS["textgrid"].write(transcript))
    shutil.copy(tones / "lexicon.txt", folder)
    shutil.copytree(tone_run, folder / "runs" / "start")
    return folder


def test_every_command(place):
    lines = commands()
    assert [line.split()[1] for line in lines] == (
        "prepare prepare check align train transcribe".split()
    )
    for line in lines:
        words = shlex.split(line)
        if words[1] == "train":
            words += [*SMALL, "trainer.max_epochs=1"]
        command = [sys.executable, "-c", "from asr.cli import main; main()", *words[1:]]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    sets = load_corpus("jsonl", place / "own").sets
    assert sorted(len({u.speaker for u in us}) for us in sets.values()) == [1, 1, 1]
    (whole,) = load_corpus("jsonl", place / "whole").sets.values()
    assert len(whole) == 24
    for utterance in whole:
        found = textgrid.openTextgrid(
            str(place / "aligned" / f"{utterance.id}.TextGrid"), includeEmptyIntervals=False
        )
        starts = [(e.label, e.start) for e in found.getTier("words").entries]
        assert [label for label, _ in starts] == utterance.text.split()
        document = Elan.Eaf(str(place / "aligned" / f"{utterance.id}.eaf"))
        spans = document.get_annotation_data_for_tier("words")
        assert [label for *_, label in spans] == utterance.text.split()
        off = [abs(s - word.start_s) for (_, s), word in zip(starts, utterance.words, strict=True)]
        assert sum(off) / len(off) < 0.1
    assert len(list((place / "heard").rglob("*.TextGrid"))) == 24


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target
