"""What users change of a model's decoder, without a net: what is chosen, told and refused."""

import pytest

from asr.audio.features import FeatureConfig
from asr.decode.config import DecoderConfig, DecodingOptions
from asr.errors import InputError
from asr.labels import SPACE, LabelConfig, Labels
from asr.lm.ngram import NGram
from asr.model.bundle import Bundle
from asr.model.options import UNTUNED_WEIGHT, fitted
from asr.nets.config import RecurrentConfig

LETTERS = Labels("char", ("<blank>", SPACE, *"abcdefgh"))


def bundle(criterion="ctc", **decoder):
    return Bundle(
        FeatureConfig(),
        RecurrentConfig(),
        LETTERS,
        LabelConfig("char"),
        criterion,
        model=None,
        decoder=DecoderConfig(**decoder),
    )


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.arpa"
    NGram.estimate([["bad", "cab"], ["a", "bad", "face"], ["zoo"]], 2).write_arpa(path)
    return path


@pytest.fixture
def letters(tmp_path):
    path = tmp_path / "letters.arpa"
    NGram.estimate([list("abcdefg"), ["b", "a", "d", SPACE, "c", "a", "b"]], 2).write_arpa(path)
    return path


def fit(model, **options):
    told = []
    found, hotwords = fitted(model, DecodingOptions(**options), told.append)
    return found, hotwords, told


def test_without_options_the_model_stays_as_it_is():
    model = bundle(name="beam", beam=7)
    found, hotwords, told = fit(model)
    assert (found.decoder, hotwords, told) == (model.decoder, {}, [])


def test_words_that_the_lexicon_lacks_are_told(words, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("bad\ncab\nface\n")
    _, _, told = fit(bundle(), lexicon=lexicon, lm=words, lm_weight=1.0)
    share = sum(
        10 ** NGram.read_arpa(words).scores([word], bos=False, eos=False)[0]
        for word in ("a", "zoo")
    )
    assert told[1] == (
        f"{words}: 2 of its 5 words ({share:.1%} of what it expects) are not in the lexicon and "
        "never found: a, zoo"
    )


def test_letters_spell_the_words_of_the_language_model(words):
    found, _, told = fit(bundle(), lexicon="lm", lm=words)
    assert found.decoder.name == "beam"
    assert found.decoder.lexicon
    assert found.decoder.word_lm_weight == UNTUNED_WEIGHT
    assert set(found.lexicon.words) == {"bad", "cab", "a", "face"}  # no letter for zoo
    assert len(told) == 2
    assert "beam instead of greedy" in told[0]
    assert "asr tune" in told[1]


def test_a_language_model_over_letters(letters):
    found, _, told = fit(bundle(name="beam"), lm=letters, lm_weight=0.8, bonus=0.5)
    assert (found.decoder.lm_weight, found.decoder.bonus) == (0.8, 0.5)
    assert not found.decoder.lexicon
    (line,) = told
    assert "h: scored as <unk>" in line


def test_tuned_weights_stay_where_none_is_named(words):
    model = bundle(name="beam", lexicon=False, word_lm_weight=0.7, word_bonus=1.0)
    found, _, told = fit(model, lexicon="lm", lm=words)
    assert (found.decoder.word_lm_weight, found.decoder.word_bonus) == (0.7, 1.0)
    assert told == []
    plain, _, _ = fit(found, lm="none")
    assert (plain.decoder.word_lm_weight, plain.decoder.word_bonus) == (0.0, 0.0)


def test_hotwords_are_spelled_into_the_lexicon(words):
    found, hotwords, _ = fit(bundle(), lexicon="lm", lm=words, hotword=["egg:4", "bad cab:2"])
    assert hotwords == {("egg",): 4.0, ("bad", "cab"): 2.0}
    assert "egg" in found.lexicon.words


@pytest.mark.parametrize("option", ["lm", "lexicon", "rescore"])
def test_framewise_models_have_no_use_for_words(option):
    with pytest.raises(InputError, match=f"--{option} is for beam search: this framewise"):
        fit(bundle("framewise", name="viterbi"), **{option: "x"})
    found, _, _ = fit(bundle("framewise", name="viterbi"), nbest=3)
    assert (found.decoder.name, found.decoder.nbest) == ("viterbi", 3)


def test_viterbi_is_for_framewise_models():
    with pytest.raises(InputError, match="framewise"):
        fit(bundle(), decoder="viterbi")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lexicon": "cmudict"}, "use --lexicon lm"),
        ({"lexicon": "lm"}, "add --lm"),
        ({"lexicon": "model"}, "no lexicon.txt"),
        ({"lm_weight": 0.5}, "no language model over chars"),
        ({"unknown": 3.0}, "add --lexicon"),
        ({"hotword": ["egg:4"]}, "add --lexicon"),
        ({"beam": 0}, "beam=0"),
        ({"lm_weight": -1.0, "lm": "letters"}, "lm_weight=-1"),
        ({"lm": "words"}, "if it is over words, add --lexicon"),
    ],
)
def test_one_line_says_what_is_missing(options, told, words, letters):
    files = {"words": words, "letters": letters}
    options = options | ({"lm": files[options["lm"]]} if "lm" in options else {})
    with pytest.raises(InputError, match=told) as raised:
        fit(bundle(), **options)
    assert "\n" not in str(raised.value)
