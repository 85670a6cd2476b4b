import pytest

from asr.errors import InputError
from asr.score.error_rate import policy_name
from asr.score.normalise import normaliser
from asr.score.pairs import checked_policy


def made(text, *names, markup=False):
    return normaliser(names, markup)(text)


def test_case():
    assert made("The CAT, É", "case") == "the cat, é"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The cat, it sat.", "The cat it sat"),
        ("don't 'quote' rock’n’roll", "don't quote rock'n'roll"),
        ("well-known—yes and/or", "well known yes and or"),
        ("¿qué? 「日本」 +1", "qué 日本 1"),
    ],
)
def test_punctuation(text, plain):
    assert made(text, "punctuation").split() == plain.split()


def test_markup_stays_where_it_means_something():
    text = "{ one, / @ } (uh) end."
    assert made(text, "punctuation", markup=True).split() == "{ one / @ } (uh) end".split()


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ("At 10:30 she had 50%.", "at ten thirty she had fifty percent"),
        (
            "It was $23.50 in 1984!",
            "it was twenty-three dollars and fifty cents in nineteen eighty-four",
        ),
        ("The 21st of 1,204", "the twenty first of one thousand two hundred and four"),
        ("3.5 km", "three point five km"),
    ],
)
def test_numbers(figures, words):
    pytest.importorskip("whisper_normalizer")
    assert made(figures, "numbers", "punctuation") == made(words, "punctuation", "numbers")


def test_times_are_no_single_word():
    assert made("10:30", "punctuation") == "10 30"


def test_contractions_and_spelling():
    pytest.importorskip("whisper_normalizer")
    assert made("Mr. Smith can't", "contractions", "punctuation").split() == (
        "mister smith can not".split()
    )
    assert made("The Colour isn't grey", "spelling") == "the color isn't gray"
    assert made("{ Colour / @ } (uh)", "spelling", markup=True) == "{ color / @ } (uh)"


def test_whispers_rules_are_its_own():
    english = pytest.importorskip("whisper_normalizer.english")
    text = "Um, [laughs] Mr. Smith's colour isn’t 50% (I said) of $23.50 — at 10:30?"
    assert made(text, "whisper") == english.EnglishTextNormalizer()(text)


@pytest.mark.parametrize(
    ("names", "markup", "told"),
    [
        (["spell"], False, "normalisation 'spell' does not exist; choose from whisper, case"),
        (["whisper", "case"], False, "name it alone"),
        (["whisper"], True, "'whisper' is not for alignment nist"),
        (["contractions"], True, "'contractions' is not for alignment nist"),
    ],
)
def test_what_cannot_be_made_alike_is_refused(names, markup, told):
    with pytest.raises(InputError, match=told):
        normaliser(names, markup)


def test_policies_name_what_was_made_alike():
    assert policy_name("word", normalisations=["punctuation", "case"]) == (
        "words, in lower case, without punctuation"
    )
    assert checked_policy("word", "nist", "none", "count", ["numbers"]) == (
        "words, in lower case, English numbers in figures, NIST alignment"
    )
