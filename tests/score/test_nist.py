import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import InputError
from asr.score.nist import align_nist

SO762 = Path(__file__).parents[3] / "shared" / "data" / "so762"


def columns(reference, hypothesis):
    (alignment,) = align_nist([reference], [hypothesis])
    return [(c.error or "C", c.reference or "", c.hypothesis or "") for c in alignment.columns]


def sclite(pairs, folder):
    """Columns of every pair, as `columns`, from sclite's SGML output."""
    for name, side in (("r", 0), ("h", 1)):
        lines = [f"{pair[side]} (s-{i})\n" for i, pair in enumerate(pairs)]
        (folder / f"{name}.trn").write_text("".join(lines), encoding="utf-8")
    files = ["-r", folder / "r.trn", "trn", "-h", folder / "h.trn", "trn"]
    options = ["-i", "spu_id", "-D", "-e", "utf-8", "-o", "sgml", "-O", folder]
    subprocess.run(["sctk", "sclite", *files, *options], check=True, stdout=subprocess.DEVNULL)
    sgml = (folder / "h.trn.sgml").read_text(encoding="utf-8")
    found = {}
    for utterance, row in re.findall(r'<PATH id="\(s-(\d+)\)"[^>]*>\n(.*?)\n?</PATH>', sgml, re.S):
        cells = re.findall(r'([CSDI]),("[^"]*")?,("[^"]*")?(?::|$)', row)
        found[int(utterance)] = [(e, r.strip('"'), h.strip('"')) for e, r, h in cells]
    return [found[i] for i in range(len(pairs))]


def drawn(rng, words, alternatives):
    tokens = []
    for _ in range(rng.randrange(12)):
        kind = rng.random()
        word = rng.choice(words)
        if alternatives and kind < 0.15:
            options = [
                "@" if rng.random() < 0.2 else drawn(rng, words, rng.random() < 0.2).strip()
                for _ in range(rng.randrange(1, 4))
            ]
            options = [option for option in options if option] or [word]
            tokens.append("{ " + " / ".join(options) + " }")
        elif alternatives and kind < 0.3:
            tokens.append(f"({word})")
        else:
            tokens.append(word)
    return " ".join(tokens)


def real_pairs(n):
    """Neighbouring sentences of so762: real words, every kind of error."""
    sentences = [
        path.read_text(encoding="utf-8").split(maxsplit=2)[2].strip()
        for path in sorted(SO762.glob("T*/DR1/*/*.TXT"))[: 2 * n]
    ]
    return list(zip(sentences[::2], sentences[1::2], strict=True))


needs_sclite = pytest.mark.skipif(not shutil.which("sctk"), reason="sctk is not installed")


@needs_sclite
@pytest.mark.parametrize("words", ["ab", "abcde", "A a É é naïve don't uh-huh x*".split()])
def test_columns_equal_sclite_on_drawn_pairs(words, tmp_path):
    rng = random.Random(3)
    pairs = [(drawn(rng, words, True), drawn(rng, words, i % 3 == 0)) for i in range(500)]
    pairs += [(drawn(rng, words, False), drawn(rng, words, False)) for i in range(500)]
    theirs = sclite(pairs, tmp_path)
    for (reference, hypothesis), expected in zip(pairs, theirs, strict=True):
        assert columns(reference, hypothesis) == expected, (reference, hypothesis)


@needs_sclite
@pytest.mark.skipif(not SO762.exists(), reason="so762 is not here")
def test_columns_equal_sclite_on_real_sentences(tmp_path):
    pairs = real_pairs(500)
    assert len(pairs) == 500
    for pair, expected in zip(pairs, sclite(pairs, tmp_path), strict=True):
        assert columns(*pair) == expected, pair


def test_weights_prefer_two_gaps_and_a_hit_to_two_substitutions():
    # Edit distance: two substitutions (2 errors). NIST: 3 + 3 < 4 + 4, hence D and I round a hit.
    assert columns("a b", "b c") == [("D", "a", ""), ("C", "b", "b"), ("I", "", "c")]


def test_alternatives():
    assert columns("{ a b / c } d", "c d") == [("C", "c", "c"), ("C", "d", "d")]
    assert columns("{a/{b/c}d}", "c d") == [("C", "c", "c"), ("C", "d", "d")]
    assert columns("x { a / @ } y", "x y") == [("C", "x", "x"), ("C", "y", "y")]
    assert columns("and/or", "and/or") == [("C", "and/or", "and/or")]


def test_optional_words():
    assert columns("(uh) yes", "yes") == [("C", "(uh)", ""), ("C", "yes", "yes")]
    assert columns("(uh) yes", "uh yes") == [("C", "(uh)", "uh"), ("C", "yes", "yes")]
    assert columns("(uh)", "oh") == [("S", "(uh)", "oh")]


def test_case_and_word_marks():
    assert columns("Hello WORLD* x;noun", "hello world x") == [
        ("C", "hello", "hello"),
        ("C", "world", "world"),
        ("C", "x", "x"),
    ]


def test_empty_sides():
    assert columns("", "") == []
    assert columns("", "a") == [("I", "", "a")]
    assert columns("a", "") == [("D", "a", "")]
    assert len(align_nist([], [])) == 0


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("a { b / c", "'{' without '}'"),
        ("a b } c", "'}' without '{'"),
        ("a { / } c", "alternatives without a word"),
    ],
)
def test_bad_markup_names_the_utterance(reference, message):
    with pytest.raises(InputError, match=rf"^r\.trn:7: {re.escape(message)}"):
        align_nist([reference], ["a"], (["r.trn:7"], ["h.trn:7"]))
    with pytest.raises(InputError, match=rf"^hypothesis 2: {re.escape(message)}"):
        align_nist(["a", "a"], ["a", reference])


def test_too_long_to_align():
    text = "a " * 15_000
    with pytest.raises(InputError, match="reference 1: is too long for alternatives"):
        align_nist([text + "{ a / b }"], [text])
    (alignment,) = align_nist([text], [text])
    assert alignment.hits == 15_000


@settings(deadline=None)
@given(st.text("ab @{}/() ;*", max_size=20), st.text("ab @{}/() ;*", max_size=20))
def test_any_markup_is_aligned_or_refused(reference, hypothesis):
    try:
        (alignment,) = align_nist([reference], [hypothesis])
    except InputError:
        return
    errors = [c.error for c in alignment.columns]
    assert alignment.hits == errors.count("")
    assert alignment.errors == len(errors) - alignment.hits


@pytest.mark.slow
def test_a_million_words_take_less_than_ten_seconds_of_processor_time():
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(10_000)]
    pairs = []
    for _ in range(50_000):
        reference = rng.choices(vocabulary, k=20)
        hypothesis = [rng.choice(vocabulary) if rng.random() < 0.1 else w for w in reference]
        pairs.append((" ".join(reference), " ".join(hypothesis)))
    references, hypotheses = zip(*pairs, strict=True)
    start = time.process_time()
    alignments = align_nist(references, hypotheses)
    assert time.process_time() - start < 10
    assert alignments.reference_lengths.sum() == 1_000_000
