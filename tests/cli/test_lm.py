import gzip
import json
import math
import random
import subprocess
import sys

import pytest
from running import asr

from asr.lm.ngram import NGram
from asr.lm.query import load_lm

TINY = ["--kind", "lstm", "--hidden", 8, "--epochs", 2, "--batch", 4, "--bptt", 8]


@pytest.fixture
def text(tmp_path):
    rng = random.Random(1)
    path = tmp_path / "text.txt"
    subjects, verbs = ["she", "he"], ["had a hat", "had the cat", "was here"]
    lines = [f"{rng.choice(subjects)} {rng.choice(verbs)}\n" for _ in range(60)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *words: asr(monkeypatch, capsys, "lm", *words)


def test_ngram_end_to_end(run, text, tmp_path):
    arpa = tmp_path / "lm.arpa"
    status, out, _ = run("train", text, "--kind", "ngram", "--order", 3, "--out", arpa)
    assert status == 0
    assert "3-gram" in out
    status, out, _ = run("score", arpa, text, "--json")
    found = json.loads(out)
    assert list(found) == ["log10_prob", "tokens", "oov", "perplexity", "perplexity_without_oov"]
    lm = NGram.read_arpa(arpa)
    lines = text.read_text().splitlines()
    assert found["log10_prob"] == pytest.approx(sum(lm.score(line.split()) for line in lines))
    assert found["tokens"] == sum(len(line.split()) + 1 for line in lines)
    assert found["oov"] == 0
    assert found["perplexity"] == found["perplexity_without_oov"]
    first = run("sample", arpa, "--prime", "she had", "--count", 5, "--seed", 1)
    assert first == run("sample", arpa, "--prime", "she had", "--count", 5, "--seed", 1)
    assert first[0] == 0
    assert len(first[1].splitlines()) == 5
    assert all(line.startswith("she had") for line in first[1].splitlines())
    assert first[1] != run("sample", arpa, "--prime", "she had", "--count", 5, "--seed", 2)[1]


def test_lstm_end_to_end(run, text, tmp_path):
    folder = tmp_path / "lm"
    status, out, err = run("train", text, *TINY, "--out", folder)
    assert status == 0
    assert err.count("dev perplexity") == 2
    held = tmp_path / "held.txt"
    held.write_text("".join(text.read_text().splitlines(keepends=True)[-6:]))
    status, scored, _ = run("score", folder, held, "--json")
    best = json.loads(scored)["perplexity"]
    assert f"dev perplexity {best:.2f} (" in out
    with_dev = run("train", text, *TINY, "--out", tmp_path / "lm2", "--dev", held)
    assert with_dev[0] == 0
    status, out, _ = run("sample", folder, "--count", 3, "--top-k", 2, "--max-tokens", 4)
    assert status == 0
    assert len(out.splitlines()) == 3
    assert all(len(line.split()) <= 4 for line in out.splitlines())


def test_scores_by_line(run, text, tmp_path):
    arpa = tmp_path / "lm.arpa"
    run("train", text, "--out", arpa)
    probe = tmp_path / "probe.txt"
    probe.write_text("she was here\n\nshe flew\n")
    _, out, _ = run("score", arpa, probe, "--lines", "--json")
    found = json.loads(out)
    assert [line["text"] for line in found["lines"]] == ["she was here", "she flew"]
    assert [line["oov"] for line in found["lines"]] == [0, 1]
    assert sum(line["log10_prob"] for line in found["lines"]) == pytest.approx(found["log10_prob"])
    assert found["perplexity_without_oov"] < found["perplexity"]
    _, out, _ = run("score", arpa, probe, "--lines")
    assert len(out.splitlines()) == 3
    assert out.splitlines()[1].split("\t")[1:3] == ["3", "1"]


def test_characters_of_both_kinds(run, text, tmp_path):
    arpa, folder = tmp_path / "lm.arpa.gz", tmp_path / "lm"
    assert run("train", text, "--unit", "char", "--order", 4, "--out", arpa)[0] == 0
    assert gzip.decompress(arpa.read_bytes()).startswith(b"\\data\\\n")
    assert run("train", text, "--unit", "char", *TINY, "--out", folder)[0] == 0
    n = sum(len(line) for line in text.read_text().splitlines(keepends=True))
    for lm in (arpa, folder):
        status, out, _ = run("score", lm, text, "--json")
        assert status == 0
        assert json.loads(out)["tokens"] == n  # a line's end takes the place of its newline
        status, out, _ = run("sample", lm, "--prime", "she h", "--max-tokens", 7)
        assert out.startswith("she h")
        assert len(out) <= len("she h") + 7 + 1


def test_phones_of_a_manifest(run, tmp_path):
    path = tmp_path / "train.jsonl"
    rng = random.Random(1)
    with path.open("w") as handle:
        for i in range(20):
            phones = [rng.choice(["ix", "ih", "aa", "q", "h#"]) for _ in range(9)]
            line = {"id": f"u{i}", "audio_filepath": "a.wav", "duration": 1.0, "phones": phones}
            handle.write(json.dumps(line) + "\n")
    phones = ["--unit", "phone", "--fold", "timit39"]
    arpa, folder = tmp_path / "lm.arpa", tmp_path / "lm"
    assert run("train", path, *phones, "--out", arpa)[0] == 0
    assert set(NGram.read_arpa(arpa).tokens[3:]) == {"ih", "aa", "sil"}
    assert run("train", path, *phones, *TINY, "--out", folder)[0] == 0
    assert not load_lm(folder).config.carry, "utterances do not go on from one another"
    by_ngram = json.loads(run("score", arpa, path, *phones, "--json")[1])
    by_lstm = json.loads(run("score", folder, path, "--json")[1])
    assert by_ngram["tokens"] == by_lstm["tokens"]
    assert by_ngram["oov"] == by_lstm["oov"] == 0


def test_the_same_vocabulary_for_both_kinds(run, text, tmp_path):
    text.write_text(text.read_text() + "she flew home\n")
    arpa, folder = tmp_path / "lm.arpa", tmp_path / "lm"
    run("train", text, "--min-count", 2, "--out", arpa)
    run("train", text, "--dev", text, *TINY, "--out", folder)
    assert set(NGram.read_arpa(arpa).tokens) == set(load_lm(folder).tokens)
    for lm in (arpa, folder):
        found = json.loads(run("score", lm, text, "--json")[1])
        assert found["oov"] == 2
        assert found["perplexity"] < 1e3


def test_an_unknown_prime_word_is_said(run, text, tmp_path):
    run("train", text, "--out", tmp_path / "lm.arpa")
    status, out, err = run("sample", tmp_path / "lm.arpa", "--prime", "she zapped")
    assert status == 0
    assert out.startswith("she zapped")
    assert err == "asr: word 'zapped' is not in the vocabulary: read as <unk>\n"


def test_dev_perplexity_of_the_ngram(run, text, tmp_path):
    _, out, _ = run("train", text, "--out", tmp_path / "lm.arpa", "--dev", text)
    found = json.loads(run("score", tmp_path / "lm.arpa", text, "--json")[1])
    assert f"dev perplexity {found['perplexity']:.2f}" in out


def test_an_impossible_word_has_an_infinite_perplexity_not_a_traceback(run, tmp_path):
    arpa = tmp_path / "lm.arpa"
    arpa.write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-1e6 <s>\n-1e6 </s>\n-1e6 a\n\n\\end\\\n")
    (tmp_path / "text.txt").write_text("a\n")
    status, out, _ = run("score", arpa, tmp_path / "text.txt", "--json")
    assert status == 0
    assert json.loads(out)["perplexity"] == math.inf


def test_text_as_it_is_written_can_be_made_alike(run, text, tmp_path):
    written, plain = tmp_path / "written.txt", tmp_path / "plain.txt"
    written.write_text("“Yes,” she said — it’s <UNK>.\n" * 3, encoding="utf-8")
    plain.write_text("yes she said it's <unk>\n" * 3)
    for kind, out in ((["--order", 2], "lm.arpa"), (TINY, "lm")):
        scores = []
        for source in (written, plain):
            lm = tmp_path / source.stem / out
            options = ["--normalise", "case,punctuation", "--out", lm]
            assert run("train", source, *kind, "--min-count", 1, *options)[0] == 0
            scores.append(run("score", lm, source, "--normalise", "case,punctuation")[1])
        assert scores[0] == scores[1]
    status, _, err = run("train", text, "--unit", "phone", "--normalise", "case", "--out", out)
    assert (status, "for words and characters" in err) == (2, True)


def test_both_ways_to_write_the_unknown_token_are_one(run, tmp_path):
    text, arpa = tmp_path / "text.txt", tmp_path / "lm.arpa"
    text.write_text("a <UNK> b\n<unk> a\n")
    assert run("train", text, "--order", 2, "--out", arpa)[0] == 0
    assert sorted(load_lm(arpa).tokens) == ["</s>", "<s>", "<unk>", "a", "b"]
    assert run("score", arpa, text)[0] == 0


def test_bad_input_is_one_line(run, text, tmp_path):
    arpa, folder, empty = tmp_path / "lm.arpa", tmp_path / "lm", tmp_path / "empty.txt"
    empty.write_text("\n\n")
    one = tmp_path / "one.txt"
    one.write_text("yes yes\nyes\n")
    single = tmp_path / "single.txt"
    single.write_text("yes no yes no\n")
    bad = tmp_path / "bad.arpa"
    bad.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\nminus-one a\n\n\\end\\\n")
    run("train", text, "--unit", "char", *TINY, "--out", folder)
    for words, expected in (
        (["train", empty, "--out", arpa], "empty.txt: empty"),
        (["train", one, "--out", arpa], "a vocabulary of 1 tokens"),
        (["train", one, *TINY, "--out", tmp_path / "x"], "a vocabulary of 1 tokens"),
        (["train", single, *TINY, "--out", tmp_path / "x"], "a single sentence"),
        (["train", tmp_path / "no.txt", "--out", arpa], "no.txt: cannot be read"),
        (["train", text, "--order", 0, "--out", arpa], "order must be 1 or more"),
        (["train", text, "--hidden", 5, "--out", arpa], "'hidden' is not for --kind ngram"),
        (["train", text, *TINY, "--order", 2, "--out", arpa], "'order' is not for --kind lstm"),
        (["train", text, *TINY, "--cell", "lstn", "--out", arpa], "expected one of rnn, lstm"),
        (["train", text, "--out", folder], "is a folder"),
        (["train", text, *TINY, "--out", folder], "exists and is not an empty folder"),
        (["score", tmp_path / "no.arpa", text], "no such language model"),
        (["score", tmp_path, text], "not a language model directory"),
        (["score", bad, text], "bad.arpa:5: not a number"),
        (["score", folder, text, "--unit", "word"], "is a model of chars"),
        (["score", folder, empty], "empty.txt: empty"),
        (["sample", folder, "--temperature", 0], "temperature must be above 0"),
        (["sample", folder, "--max-tokens", 0], "max_tokens 1 or more"),
    ):
        status, out, err = run(*words)
        assert status == 2, words
        assert expected in err
        assert err.startswith("asr: ")
        assert err.count("\n") == 1
        assert not out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from asr.cli import register; register(); "
        "sys.exit(bool({'torch', 'numba', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_capitals_and_punctuation_are_told(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Hello, you.\nyou there\n")
    words = ("lm", "train", text, "--out", tmp_path / "a.arpa", "--order", 1)
    assert "Hello, you.; --normalise" in asr(monkeypatch, capsys, *words)[2]
    alike = asr(monkeypatch, capsys, *words, "--normalise", "case,punctuation")
    assert "--normalise" not in alike[2]
    text.write_text("HELLO YOU\nYOU THERE\n")
    assert "--normalise" not in asr(monkeypatch, capsys, *words)[2]
