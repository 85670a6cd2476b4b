import pytest

from asr.errors import InputError
from asr.files import walked, write_aside, write_text


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
