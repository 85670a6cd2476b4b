import pytest

from asr.errors import InputError
from asr.score.error_rate import policy_name
from asr.score.normalise import normaliser


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


def test_numbers():
    pytest.importorskip("num2words")
    assert made("in 1,204 of 3.05 on the 21st", "numbers") == (
        "in one thousand two hundred and four of three point zero five on the twenty-first"
    )
    assert made("A4 1.2.3 " + "9" * 30, "numbers") == "A4 1.2.3 " + "9" * 30
    assert made("The 2nd!", "numbers", "case", "punctuation").strip() == "the second"


def test_what_does_not_exist():
    with pytest.raises(InputError, match="normalisation 'spelling' does not exist; choose from"):
        normaliser(["spelling"], False)


def test_policies_name_what_was_made_alike():
    assert policy_name("word", normalisations=["punctuation", "case"]) == (
        "words, in lower case, without punctuation"
    )
    assert policy_name("word", alignment="nist", normalisations=["numbers"]) == (
        "words, English numbers spelled out, in lower case, NIST alignment"
    )
