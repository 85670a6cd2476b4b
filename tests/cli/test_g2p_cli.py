import io
import json
import shlex

import pytest
from running import asr

from asr.g2p.train import loss_of

LEXICON = "".join(f"{a}{b}\t{a} {b}\n{a}{b}{a}\t{a} {b} {a}\n" for a in "bdfgklmn" for b in "aeiou")
TINY = ["--layers", 1, "--hidden", 16, "--order", 2, "--device", "cpu", "--dropout", 0]


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *words: asr(monkeypatch, capsys, "g2p", *words)


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return path


def test_train_apply_and_score(run, lexicon, tmp_path):
    model, words = tmp_path / "model", tmp_path / "words.txt"
    status, out, err = run(
        "train", lexicon, "--out", model, *TINY, "--epochs", 30, "--batch", 8, "--lr", 0.02
    )
    assert status == 0
    assert err.count("\nepoch") == 29
    assert "76 words" in out
    status, out, _ = run("score", model, lexicon, "--json")
    found = json.loads(out)
    assert list(found) == ["word_error_rate", "phone_error_rate", "words"]
    assert found["words"] == 80
    assert found["word_error_rate"] < 0.2
    assert f"{found['word_error_rate']:.2%} of 80 words" in run("score", model, lexicon)[1]
    words.write_text("bano NUM\nbano h\u00e9\n", encoding="utf-8")
    status, out, err = run("apply", model, words)
    assert status == 1
    assert out == "bano\tb a n o\nNUM\tn u m\n"
    assert "1 of 3 words have letters" in err
    assert "h\u00e9" in err
    _, out, _ = run("apply", model, words, "--nbest", 2)
    word, probability, phones = out.splitlines()[0].split("\t")
    assert (word, phones) == ("bano", "b a n o")
    assert 0 < float(probability) <= 1


def test_words_that_another_model_pronounced_are_trained_on(run, lexicon, tmp_path):
    taught = tmp_path / "taught.txt"
    taught.write_text("bano\t0.7500\tb a n o\nbano\t0.2500\tb a n\n")
    words = ["train", lexicon, "--taught", taught, *TINY, "--epochs", 1]
    assert run(*words, "--out", tmp_path / "model")[0] == 0
    taught.write_text("bano\tb unheard-of\n")
    status, _, err = run(*words, "--out", tmp_path / "other")
    assert status == 2
    assert f"{taught}:1" in err


def test_joined_models_are_one(run, lexicon, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, frames in zip(folders, (2, 3), strict=True):
        words = ["train", lexicon, "--out", folder, *TINY, "--epochs", 15, "--frames", frames]
        assert run(*words, "--batch", 8, "--lr", 0.02)[0] == 0
    status, out, _ = run("join", *folders, "--out", tmp_path / "both", "--dev", lexicon)
    assert status == 0
    assert "2 nets" in out
    alone, both = (
        json.loads(run("score", folder, lexicon, "--json")[1])["word_error_rate"]
        for folder in (folders[0], tmp_path / "both")
    )
    assert both <= alone
    (tmp_path / "small.txt").write_text("ba b a\nda d a\n")
    run("train", tmp_path / "small.txt", "--out", tmp_path / "c", *TINY, "--epochs", 1)
    status, _, err = run(
        "join", folders[0], tmp_path / "c", "--out", tmp_path / "d", "--dev", lexicon
    )
    assert status == 2
    assert "one lexicon" in err


@pytest.mark.parametrize("batches", [25, 40, 45])
def test_an_interrupted_training_goes_on_exactly(run, lexicon, tmp_path, monkeypatch, batches):
    """Within an epoch, at the end of the last, and while the search's weights are found."""
    words = ["train", lexicon, *TINY, "--dropout", 0.3, "--epochs", 4, "--batch", 8, "--out"]
    assert run(*words, tmp_path / "whole")[0] == 0
    out, left = tmp_path / "cut", iter(range(batches))

    def counted(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return loss_of(*arguments)

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("asr.g2p.train.loss_of", counted)
        patched.setattr("asr.g2p.train.tuned", stopped)
        status, _, err = run(*words, out)
    assert status == 130
    told = err.splitlines()[-1]
    assert told.startswith("asr: stopped; go on with: asr g2p train ")
    assert run("score", out, lexicon)[0] == 0
    status, _, err = run(*words, out)
    assert (status, "--resume" in err) == (2, True)
    status, _, err = run(*words, out, "--resume", "--lr", 0.5)
    assert (status, "other settings" in err) == (2, True)
    again = shlex.split(told.partition("asr g2p ")[2])
    assert run(*again)[0] == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()
    }
    status, _, err = run(*again)
    assert (status, "nothing to resume" in err) == (2, True)


def test_a_training_stopped_before_its_first_epoch_leaves_nothing(
    run, lexicon, tmp_path, monkeypatch
):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("asr.g2p.train.loss_of", stopped)
    status, _, err = run("train", lexicon, "--out", tmp_path / "m", *TINY)
    assert (status, err) == (130, "asr: stopped; nothing was begun\n")
    assert not (tmp_path / "m").exists()


def test_mistakes_are_one_line(run, lexicon, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty.txt").touch()
    for words, said in [
        (("train", lexicon, "--out", tmp_path / "full"), "choose another"),
        (("train", tmp_path / "none", "--out", tmp_path / "m"), "cannot be read"),
        (("train", lexicon, "--out", tmp_path / "m", "--layers", 0), "layers=0"),
        (("apply", tmp_path / "full", lexicon), "asr g2p train"),
        (("score", tmp_path / "none", lexicon), "asr g2p train"),
    ]:
        status, _, err = run(*words)
        assert status == 2
        assert said in err
        assert len(err.splitlines()) == 1


def test_a_file_without_words_is_refused(run, lexicon, tmp_path):
    run("train", lexicon, "--out", tmp_path / "m", *TINY, "--epochs", 1)
    (tmp_path / "empty.txt").touch()
    status, _, err = run("apply", tmp_path / "m", tmp_path / "empty.txt")
    assert status == 2
    assert "holds no word" in err


def test_minutes_end_a_training(run, lexicon, tmp_path):
    status, _, err = run("train", lexicon, "--out", tmp_path / "m", *TINY, "--minutes", 0)
    assert status == 0
    assert err.count("epoch ") == 1


def test_words_come_by_name_or_on_standard_input(run, monkeypatch):
    status, out, _ = run("apply", "english", "--word", "batting", "--word", "bat")
    assert status == 0
    assert out == "batting\tb ae t ih ng\nbat\tb ae t\n"
    for given in (b"bat\n", b"\xef\xbb\xbfbat\r\n", "bat\n".encode("utf-16")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert run("apply", "english", "-")[1] == "bat\tb ae t\n"
    for given, told in (
        (io.TextIOWrapper(io.BytesIO(b"bat\nb\xe9t\n")), "asr: -:2: is not UTF-8 text"),
        (io.TextIOWrapper(io.BytesIO()), "asr: -: holds no word"),
        (None, "asr: -: standard input is closed"),
    ):
        monkeypatch.setattr("sys.stdin", given)
        status, out, err = run("apply", "english", "-")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(told)
    status, _, err = run("apply", "english")
    assert status == 2
    assert "--word" in err
