import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.pronunciations import Entry
from asr.errors import InputError
from asr.g2p.model import CONFIG, LETTERS, PHONES, SPOKEN, WEIGHTS, Pronouncer
from asr.g2p.net import NetConfig
from asr.g2p.score import rates, score
from asr.g2p.train import TrainConfig, batches_of, examples_of, held_out, train
from asr.g2p.words import Dictionary, Letters, lexicon_line

CPU = torch.device("cpu")
CONSONANTS, VOWELS = "bdfgkl", "aeiou"


def said(word):
    """A letter is a phone, but a consonant before i is soft, and a last e is silent."""
    phones = [c + "j" if n == "i" else c for c, n in zip(word, [*word[1:], ""], strict=True)]
    return tuple(phones[:-1] if word[-1] == "e" else phones)


def regular(n, seed):
    rng = random.Random(seed)
    words = {
        "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 4)))
        for _ in range(n)
    }
    return dictionary([(word, said(word)) for word in sorted(words)])


def dictionary(entries):
    return Dictionary("lexicon", tuple(Entry(f"lexicon:{i}", *e) for i, e in enumerate(entries)))


SMALL = TrainConfig(NetConfig(layers=2, hidden=16, embedding=16, dropout=0.0), order=3, epochs=12)


@pytest.fixture(scope="module")
def model():
    words = regular(1500, 1)
    return train(words, regular(200, 2), replace(SMALL, batch=16, lr=0.01), CPU)[0]


def test_learns_regular_pronunciations_of_words_never_seen(model):
    unseen = {w: p for w, p in regular(400, 3).by_word.items() if w not in regular(1500, 1).by_word}
    entries = dictionary([(word, way) for word, (way,) in unseen.items()])
    assert score(model, entries).word_error_rate < 0.05
    assert [best[0].phones for best in model.pronounce(["bike", "lifo"])] == [
        ("bj", "i", "k"),
        ("lj", "i", "f", "o"),
    ]


def test_probabilities_are_shares_of_what_was_compared(model):
    (ways,) = model.pronounce(["dagibu"], nbest=5)
    probabilities = [way.probability for way in ways]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.9 < sum(probabilities) <= 1 + 1e-9
    assert len({way.phones for way in ways}) == len(ways)


def test_what_is_taught_is_trained_on_as_often_as_it_is_probable(model):
    words = dictionary([("bade", ("b", "a", "d"))])
    taught = [Entry("taught:1", word, said(word), 0.25) for word in ("lifo", "kage")]
    data = examples_of(words, model, [*taught, Entry("taught:3", "gobu", said("gobu"), 0.0)])
    order = np.random.default_rng(1)
    rows = np.concatenate([np.concatenate(batches_of(data, 2, order)) for _ in range(400)])
    counts = np.bincount(rows, minlength=4)
    assert counts[0] == 400
    assert 70 < counts[1] < 130
    assert 70 < counts[2] < 130
    assert counts[3] == 0
    with pytest.raises(InputError, match="taught:4"):
        examples_of(words, model, [Entry("taught:4", "ba", ("b", "unheard-of"))])


def test_what_is_taught_is_learnt():
    hard = {w: p for w, p in regular(600, 1).by_word.items() if "i" in w}
    soft = dictionary([(w, p) for w, (p,) in regular(600, 1).by_word.items() if "i" not in w])
    known = dictionary([*((e.word, e.phones) for e in soft.entries[:20]), ("bi", ("bj", "i"))])
    known = dictionary(
        [
            *((e.word, e.phones) for e in known.entries),
            *((c + "i", (c + "j", "i")) for c in "dfgkl"),
        ]
    )
    taught = [Entry(f"taught:{i}", w, p[0], 1.0) for i, (w, p) in enumerate(hard.items())]
    config = replace(SMALL, batch=16, lr=0.01)
    alone, helped = (
        train(known, soft, config, CPU, more)[1].word_error_rate for more in ((), taught)
    )
    assert helped < alone - 0.2


def test_training_is_deterministic_and_leaves_the_global_generator_alone():
    config = replace(SMALL, epochs=1, net=replace(SMALL.net, dropout=0.3))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, _ = train(regular(60, 1), regular(20, 2), config, CPU)
    assert torch.rand(1) == expected
    second, _ = train(regular(60, 1), regular(20, 2), config, CPU)
    other, _ = train(regular(60, 1), regular(20, 2), replace(config, seed=2), CPU)
    for name, weights in first.nets[0].state_dict().items():
        assert torch.equal(weights, second.nets[0].state_dict()[name])
    assert not torch.equal(first.nets[0].output.weight, other.nets[0].output.weight)


def test_a_model_directory_holds_all_of_it(model, tmp_path):
    model.save(tmp_path / "a")
    loaded = Pronouncer.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    words = list(regular(50, 5).by_word)
    assert loaded.pronounce(words, 3) == Pronouncer.load(tmp_path / "b").pronounce(words, 3)
    assert [w[0].phones for w in loaded.pronounce(words)] == [
        w[0].phones for w in model.pronounce(words)
    ]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_loading_a_model_imports_no_compiler():
    program = (
        "import sys\n"
        "from asr.g2p.model import Pronouncer\n"
        "from asr.g2p.unknown import ENGLISH\n"
        "Pronouncer.load(ENGLISH)\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", [CONFIG, LETTERS, PHONES, SPOKEN, WEIGHTS])
def test_a_damaged_model_directory_is_refused_with_the_name_of_the_file(model, tmp_path, name):
    model.save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 2])
    with pytest.raises(InputError, match=name if name != LETTERS else "letters"):
        Pronouncer.load(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=str(tmp_path)):
        Pronouncer.load(tmp_path)


def test_several_nets_are_heard_together(model):
    other, _ = train(regular(60, 1), regular(20, 2), replace(SMALL, epochs=1), CPU)
    words = list(regular(100, 6).by_word)
    alone = model.pronounce(words)
    together = replace(model, nets=model.nets * 2).pronounce(words)
    assert [w[0].phones for w in together] == [w[0].phones for w in alone]
    assert [w[0].probability for w in together] == pytest.approx(
        [w[0].probability for w in alone], abs=1e-6
    )
    three = replace(model, nets=(*model.nets, *model.nets, other.nets[0]))
    assert sum(a == b for a, b in zip(three.pronounce(words), together, strict=True)) < len(words)


@given(st.lists(st.text(max_size=30), max_size=5))
@settings(max_examples=30, deadline=None)
def test_any_text_is_pronounced_or_refused(model, words):
    for word, ways in zip(words, model.pronounce(words), strict=True):
        readable = model.letters.encode(word)
        assert ways == [] or (readable and ways[0].phones)


def test_a_word_of_many_letters_is_pronounced(model):
    (ways,) = model.pronounce(["ba" * 100])
    assert len(ways[0].phones) > 150


def test_letters_are_folded_where_the_lexicon_is_and_lose_unknown_accents():
    letters = Letters.of(["stra\u00dfe".casefold(), "caf\u00e9"])
    assert letters.encode("STRASSE") == letters.encode("stra\u00dfe")
    assert letters.encode("cafe\u0301") == letters.encode("caf\u00e9")
    assert letters.encode("caf\u00e8") == letters.encode("cafe")
    assert letters.encode("caf\u00e8") != letters.encode("caf\u00e9")
    assert letters.encode("xyz") is None
    assert letters.encode("") is None
    cased = Letters.of(["NATO", "nato"])
    assert cased.encode("NATO") != cased.encode("nato")


def test_stress_is_left_out_where_it_is_stress(tmp_path):
    path = tmp_path / "lexicon"
    path.write_text("HELLO  HH AH0 L OW1\nHELLO(1)  HH EH0 L OW1\nOWL  AW1 L\nEAU  OW0\n")
    read = Dictionary.read(path)
    assert read.by_word["HELLO"] == [("HH", "AH", "L", "OW"), ("HH", "EH", "L", "OW")]
    assert read.by_word["OWL"] == [("AW", "L")]
    known = Dictionary.read(path, ["hh", "ah", "l", "ow", "eh", "aw"])
    assert known.by_word["OWL"] == [("aw", "l")]
    path.write_text("ma m a1\nmo m a2\nba b a5\n")
    assert Dictionary.read(path).by_word["mo"] == [("m", "a2")]


def test_a_word_without_phones_is_named(tmp_path):
    path = tmp_path / "lexicon"
    path.write_text("ba b a\nbe\n")
    with pytest.raises(InputError, match="lexicon:2"):
        Dictionary.read(path)


def test_a_word_is_right_as_any_of_its_pronunciations():
    words = dictionary(
        [("a", tuple("xyz")), ("a", tuple("xy")), ("b", tuple("uvwx")), ("b", tuple("uv"))]
    )
    found = rates([tuple("xy"), tuple("uvw")], words)
    # of b: one error against either, and the longer counts
    assert found.word_error_rate == 0.5
    assert found.phone_error_rate == 1 / 6
    assert found.words == 2
    assert rates([(), ()], words).phone_error_rate == 1.0


def test_held_out_words_are_held_out_with_all_their_pronunciations():
    words = dictionary([(f"w{i // 2}", (f"p{i}",)) for i in range(100)])
    kept, held = held_out(words)
    assert not kept.by_word.keys() & held.by_word.keys()
    assert len(held.by_word) == 3
    assert len(kept.entries) + len(held.entries) == 100
    with pytest.raises(InputError, match="--dev"):
        held_out(dictionary([("a", ("x",))]))


def test_lines_are_those_of_a_lexicon(tmp_path):
    path = tmp_path / "lexicon"
    path.write_text(
        f"{lexicon_line('a', ['x', 'y'], 0.25)}\n{lexicon_line('a', ['z'], 0.75)}\n"
        f"{lexicon_line('b', ['x'], 1.0)}\n"
    )
    assert Dictionary.read(path).by_word == {"a": [("z",), ("x", "y")], "b": [("x",)]}
