"""What a user names becomes audio files, each once, each with an id of its own."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.sources import Source, distinct, each_channel, find_sources, read_list
from asr.errors import InputError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """data/{a.wav, notes.txt, one/b.FLAC, one/two/a.mp3, x[1].wav, .hidden/c.wav, empty/}."""
    for name in ("a.wav", "notes.txt", "one/b.FLAC", "one/two/a.mp3", "x[1].wav", ".hidden/c.wav"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "data/empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(*names):
    bad = []
    found = find_sources(names, lambda path, error: bad.append(str(error)))
    return {str(s.path): s.id for s in found}, bad


def test_a_folder_means_all_audio_below_it(tree):
    wanted = {
        "data/a.wav": "a",
        "data/x[1].wav": "x[1]",
        "data/one/b.FLAC": "one/b",
        "data/one/two/a.mp3": "one/two/a",
    }
    assert find("data") == (wanted, [])
    # A file of it that is named, too, is there once.
    assert find("data", "data/one/../a.wav", str(tree / "data/a.wav")) == (wanted, [])


def test_ids_begin_below_the_folder_that_all_share(tree):
    assert find("data/one/b.FLAC")[0] == {"data/one/b.FLAC": "b"}
    found, _ = find("data/one/two", "data/a.wav")
    assert found == {"data/one/two/a.mp3": "one/two/a", "data/a.wav": "a"}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("data/*", ["data/a.wav", "data/one/b.FLAC", "data/one/two/a.mp3", "data/x[1].wav"]),
        ("data/**", ["data/a.wav", "data/one/b.FLAC", "data/one/two/a.mp3", "data/x[1].wav"]),
        ("data/*.wav", ["data/a.wav", "data/x[1].wav"]),
        ("data/**/*.mp3", ["data/one/two/a.mp3"]),
        ("data/x[1].wav", ["data/x[1].wav"]),
        ("data/[ab].wav", ["data/a.wav"]),
    ],
)
def test_globs(tree, pattern, wanted):
    found, bad = find(pattern)
    assert list(found) == wanted
    assert bad == []
    assert all(f"data/{id}" == path.rsplit(".", 1)[0] for path, id in found.items())


def test_what_holds_no_audio_is_told(tree):
    found, bad = find("data/empty", "data/*.ogg", "data/gone.wav", "data/notes.txt")
    # What reads them tells of the last two.
    assert found == {"data/gone.wav": "gone", "data/notes.txt": "notes.txt"}
    assert [line.split(":")[0] for line in bad] == ["data/empty", "data/*.ogg"]


def test_films_are_not_passed_over(tree):
    for name in ("a.mp4", "talk.M4A"):
        (tree / "data" / name).touch()
    # a.wav is what a.mp4 says; what reads the other one will tell.
    found = find("data")[0]
    assert "data/a.mp4" not in found
    assert found["data/talk.M4A"] == "talk"
    assert list(find("data/*.M4A")[0]) == ["data/talk.M4A"]


def test_names_that_cannot_be_looked_up_are_told(tree, monkeypatch):
    long = "x" * 300
    found, bad = find(long, "data/one/b.FLAC", "")
    assert found == {"data/one/b.FLAC": "b"}
    assert bad == [f"{long}: cannot be read (File name too long)", "'': no file has an empty name"]

    def locked(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(top)))
        return iter(())

    monkeypatch.setattr(os, "walk", locked)
    assert find("data")[1] == ["data: this folder cannot be read (Permission denied)"]


def test_links_in_a_circle(tree):
    (tree / "data/one/again").symlink_to(tree / "data")
    (tree / "link").symlink_to(tree / "data/one/two")
    assert len(find("data")[0]) == 4
    assert find("link")[0] == {"link/a.mp3": "a"}


def test_of_two_files_of_one_id_the_first_goes_on():
    paths = [Path(name) for name in ("a.flac", "a.wav", "b.wav")]
    bad = []
    found = distinct(
        [Source(path, path.stem) for path in paths], lambda path, error: bad.append(str(error))
    )
    assert [source.path for source in found] == [paths[0], paths[2]]
    assert bad == ["a.wav: would be called a, as a.flac is; rename one"]


def test_standard_input_is_audio_among_files(tree):
    assert find("data/a.wav", "-", "data/one/b.FLAC", "-")[0] == {
        "data/a.wav": "a",
        "-": "stdin",
        "data/one/b.FLAC": "one/b",
    }
    (tree / "-").touch()
    assert find("./-")[0] == {str(tree / "-"): "-"}


def test_lists():
    assert read_list(io.BytesIO(b"a.wav\nb c.wav\n\n")) == ["a.wav", "b c.wav"]
    assert read_list(io.BytesIO(b"a\n.wav\0b.wav\0")) == ["a\n.wav", "b.wav"]
    assert read_list(io.BytesIO(b"\xff.wav")) == [os.fsdecode(b"\xff.wav")]
    assert read_list(io.BytesIO(b"")) == []
    # As editors on Windows write them; only what NUL ends may itself end in CR.
    assert read_list(io.BytesIO(b"\xef\xbb\xbfa.wav\r\n\r\nb.wav\r\n")) == ["a.wav", "b.wav"]
    assert read_list(io.BytesIO(b"a\r\0b.wav\r\0")) == ["a\r", "b.wav\r"]
    assert read_list(io.BytesIO(b"-\n")) == ["./-"]


def test_channels(tmp_path):
    for name, n in (("mono", 1), ("stereo", 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros((800, n)), 8000)
    paths = [tmp_path / f"{name}.wav" for name in ("mono", "stereo", "gone")]
    found = each_channel([Source(path, path.stem) for path in paths])
    assert [(s.id, s.channel) for s in found] == [
        ("mono", None),
        ("stereo.ch1", 1),
        ("stereo.ch2", 2),
        ("gone", None),
    ]


@pytest.mark.parametrize("begins", [b"RIFF$\0\0\0WAVE", b"fLaC\0\0", b"OggS\0", b"NIST_1A\n"])
def test_audio_is_no_list(begins):
    with pytest.raises(InputError, match="is audio, not a list of files"):
        read_list(io.BytesIO(begins))
