import os
import subprocess
import sys

import pytest

from asr.errors import InputError
from asr.system.files import remove_abandoned, walked, write_aside, write_text


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")

    def stop_halfway():
        with write_aside(path) as aside:
            aside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        stop_halfway()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "a" / "b.txt", "x")


def test_folders_are_walked_once_whatever_the_links(tmp_path):
    for name in ("a/x", "b/y", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b/y/two.txt").touch()
    (tmp_path / "b/y/one.txt").touch()
    (tmp_path / "a/x/up").symlink_to("../..")
    (tmp_path / "b/down").symlink_to("../a")
    (tmp_path / "b/self").symlink_to(".")
    (tmp_path / "a/0").symlink_to("../b/y")
    root = tmp_path / "a"
    assert list(walked(tmp_path)) == [
        (tmp_path, []),
        (root, []),
        (root / "x", []),
        (tmp_path / "b", []),
        (tmp_path / "b/y", ["one.txt", "two.txt"]),
        (tmp_path / "c", []),
    ]
    found = dict(walked(root))
    assert found[root / "0"] == ["one.txt", "two.txt"]
    assert len(found) == 3


@pytest.mark.parametrize("suffix", [".txt", ".TextGrid"])
def test_names_as_long_as_the_file_system_takes(tmp_path, suffix):
    path = tmp_path / ("ü" * 120 + "n" * (15 - len(suffix)) + suffix)
    write_text(path, "x")
    assert path.read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="File name too long"):
        write_text(tmp_path / ("n" * 260), "x")


def test_a_name_with_nul_is_told(tmp_path):
    with pytest.raises(InputError, match="NUL"):
        write_text(tmp_path / "a\0b", "x")


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    killed = "from asr.system.files import *; import os, sys; c = write_aside(Path(sys.argv[1]));"
    killed += "c.__enter__().write_text('half'); os._exit(1)"
    subprocess.run([sys.executable, "-c", killed, tmp_path / "deep" / "a.txt"], check=False)
    (half,) = (tmp_path / "deep").iterdir()
    # Just written: another machine may have it in hand.
    remove_abandoned(tmp_path)
    assert half.exists()
    others = [tmp_path / f".b.{os.getppid()}.part.txt", tmp_path / ".hidden.txt"]
    for path in (half, *others):
        path.touch()
        os.utime(path, (0, 0))
    remove_abandoned(tmp_path)
    assert not half.exists()
    # A process that runs is writing it, or it is none of ours.
    assert all(path.exists() for path in others)
