import json
import math
import random
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import InputError
from asr.labels import join, split
from asr.lm.arpa import BOS, EOS, UNK
from asr.lm.lstm import PAD, NeuralConfig, NeuralLM, padded_block, stream_block, train
from asr.lm.net import LanguageModel, LanguageModelConfig
from asr.lm.ngram import START, NGram, perplexity
from asr.lm.query import load_lm, next_log_probs, sample, summarize, token_scores
from asr.lm.text import read_sentences, vocabulary
from asr.nets.cells import CELLS

TOKENS = (UNK, BOS, EOS, *"abcdef")


def fresh(cell="lstm", layers=1, tie=True, carry=True, unit="word", hidden=8):
    torch.manual_seed(5)
    config = LanguageModelConfig(cell, layers, hidden, 0.0, tie)
    model = LanguageModel(config, len(TOKENS))
    return NeuralLM(NeuralConfig(unit, carry=carry, model=config), TOKENS, model)


def regular(n, seed):
    """(a x | b y) (c | c c), where the third word's number of c depends on the first word.

    First: a or b, evenly: 1 bit. Second: x after a, y after b: none. Then after a one c, after b
    c or cc, evenly: 1 bit half the time.
    """
    rng = random.Random(seed)
    cases = [["a", "x", "c"], ["a", "x", "c"], ["b", "y", "c"], ["b", "y", "c", "c"]]
    return [rng.choice(cases) for _ in range(n)]


@pytest.mark.parametrize("carry", [True, False])
def test_learns_a_regular_language_to_its_entropy(carry):
    model = LanguageModelConfig(hidden=24, dropout=0.0)
    config = NeuralConfig(carry=carry, model=model, epochs=8, batch=16, bptt=16, lr=0.03)
    dev = regular(400, 2)
    lm = train(regular(1000, 1), dev, config)
    true = {"a": 1.0, "b": 2.0}  # bits of a sentence by its first word
    bits = sum(true[s[0]] for s in dev)
    tokens = sum(len(s) + 1 for s in dev)
    assert perplexity(lm.scores(dev)) == pytest.approx(2 ** (bits / tokens), rel=0.02)


def test_training_is_deterministic_and_leaves_the_global_generator_alone():
    config = NeuralConfig(model=LanguageModelConfig(hidden=8), epochs=2, batch=4, bptt=8)
    text = regular(60, 1)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = train(text, text[:10], config)
    assert torch.equal(torch.rand(1), expected)
    second = train(text, text[:10], config)
    other = train(text, text[:10], replace(config, seed=2))
    weights = [lm.model.embedding.weight for lm in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("carry", [True, False])
def test_dev_perplexity_is_what_scoring_finds_and_the_best_epoch_is_kept(carry):
    dev = [["a", "x", "zzz"], ["b"], ["b", "y", "c", "c"]]
    epochs = []
    model = LanguageModelConfig(hidden=8)
    config = NeuralConfig(carry=carry, model=model, epochs=6, batch=4, bptt=3, lr=0.3)
    lm = train(regular(60, 1), dev, config, on_epoch=lambda lm, epoch: epochs.append(epoch))
    best = min(e.dev_perplexity for e in epochs)
    assert perplexity(lm.scores(dev)) == pytest.approx(best, rel=1e-6)
    lr = config.lr
    for epoch, at in zip(epochs, range(len(epochs)), strict=True):
        assert epoch.lr == lr
        assert epoch.is_best == all(epoch.dev_perplexity < e.dev_perplexity for e in epochs[:at])
        lr *= 1 if epoch.is_best else 0.5
    assert lr < config.lr, "no plateau came: choose a higher rate"


@pytest.mark.parametrize("cell", CELLS)
def test_states_go_on_where_they_stopped(cell):
    lm = fresh(cell, layers=2)
    tokens = torch.randint(3, 9, (3, 7), generator=torch.Generator().manual_seed(1))
    whole, after = lm.model(tokens, lm.initial_state(3))
    first, states = lm.model(tokens[:, :3], lm.initial_state(3))
    rest, states = lm.model(tokens[:, 3:], states)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(states, after)
    states = lm.initial_state(3)
    for t in range(7):
        step, states = lm.advance(states, tokens[:, t].tolist())
        torch.testing.assert_close(step, whole[:, t].detach())


def test_hypotheses_are_picked_by_indexing_the_states():
    lm = fresh(layers=2)
    _, states = lm.advance(lm.initial_state(3), [3, 4, 5])
    picked, _ = lm.advance(states[[2, 0]], [6, 7])
    _, alone = lm.advance(lm.initial_state(), [5])
    expected, _ = lm.advance(alone, [6])
    torch.testing.assert_close(picked[:1], expected)


def test_start_is_never_predicted_and_the_rest_sums_to_one():
    log_probs, _ = fresh().advance(fresh().initial_state(2), [START, 4])
    assert (log_probs[:, START] == -math.inf).all()
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(2))


def test_start_in_the_softmax_does_no_harm_to_the_gradient():
    lm = fresh()
    log_probs, _ = lm.model(torch.tensor([[START, 3, 4]]), lm.initial_state())
    log_probs[..., 3].sum().backward()
    assert all(p.grad.isfinite().all() for p in lm.model.parameters())


def test_tied_weights_share_storage():
    tied, untied = fresh(tie=True).model, fresh(tie=False).model
    assert tied.output_weight.data_ptr() == tied.embedding.weight.data_ptr()
    assert untied.output_weight.data_ptr() != untied.embedding.weight.data_ptr()
    extra = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert extra == untied.embedding.weight.numel()


sentences = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6), min_size=1, max_size=40)


@given(sentences, st.integers(1, 50))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("carry", [True, False])
def test_chunked_scoring_equals_whole(carry, text, at_once):
    lm = fresh(carry=carry)
    whole = lm.scores(text, at_once=10**6)
    assert [len(row) for row in whole] == [len(s) + 1 for s in text]
    for row, expected in zip(lm.scores(text, at_once), whole, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_scores_are_the_incremental_interface_summed_up():
    text = [["a", "b"], ["c"], ["a", "nowhere"]]
    for carry in (True, False):
        lm = fresh(carry=carry, layers=2)
        states, expected = lm.initial_state(), []
        for sentence in text:
            states = states if carry else lm.initial_state()
            row = []
            for token, target in zip([BOS, *sentence], [*sentence, EOS], strict=True):
                log_probs, states = lm.advance(states, [lm.id(token)])
                row.append(log_probs[0, lm.id(target)].item() / math.log(10))
            expected.append(row)
        for row, wanted in zip(lm.scores(text), expected, strict=True):
            assert row == pytest.approx(wanted, abs=1e-5)
    assert lm.scores([]) == []


@given(sentences, st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_stream_holds_every_prediction_once(text, rows):
    encoded = [[TOKENS.index(t) if t in TOKENS else 0 for t in s] for s in text]
    inputs, targets = stream_block(encoded, rows)
    kept = targets.flatten() != PAD
    assert inputs.flatten()[kept].tolist() == [t for s in encoded for t in (START, *s)]
    assert targets.flatten()[kept].tolist() == [t for s in encoded for t in (*s, 2)]
    assert len(inputs) == rows


def test_padded_block():
    inputs, targets = padded_block([[5], [6, 7]])
    assert inputs.tolist() == [[1, 5, 0], [1, 6, 7]]
    assert targets.tolist() == [[5, 2, PAD], [6, 7, 2]]


def test_save_and_load(tmp_path):
    for tie in (True, False):
        lm = fresh(layers=2, tie=tie)
        lm.save(tmp_path / "lm")
        again = load_lm(tmp_path / "lm")
        assert again.tokens == lm.tokens
        assert again.config == lm.config
        assert again.scores([["a", "b"]]) == lm.scores([["a", "b"]])
    assert sorted(p.name for p in (tmp_path / "lm").iterdir()) == [
        "config.json",
        "vocabulary.txt",
        "weights.safetensors",
    ]


def test_bad_directories(tmp_path):
    folder = tmp_path / "lm"
    with pytest.raises(InputError, match="no such language model"):
        load_lm(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="not a language model directory"):
        load_lm(folder)
    lm = fresh()

    def damaged(name, text, match):
        lm.save(folder)
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=match):
            load_lm(folder)

    config = {"format": "carousel-lm-1", **asdict(lm.config)}
    damaged("config.json", "{", "config.json")
    damaged("config.json", "[]", "config.json")
    damaged("config.json", '{"format": "other"}', "carousel-lm-1")
    damaged("config.json", json.dumps(config | {"colour": 1}), "colour")
    damaged("config.json", json.dumps(config | {"model": {"cell": "lstn"}}), "json: .*one of rnn")
    damaged("config.json", json.dumps(config | {"model": {"hidden": 9}}), "'bias'|'cells|'emb")
    damaged("vocabulary.txt", "a\nb\n", "vocabulary.txt: expected <unk>")
    damaged("vocabulary.txt", "<unk>\n<s>\n</s>\na\na\n", "each token once")
    damaged("vocabulary.txt", "<unk>\n<s>\n</s>\na\n", "has shape")
    damaged("weights.safetensors", "nonsense", "weights.safetensors: not a file of")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_lm(folder)


def test_bad_states_and_settings():
    lm = fresh(layers=2)
    with pytest.raises(InputError, match=r"states have shape .*expected \(2, 4, 8\)"):
        lm.advance(lm.initial_state(3), [3, 4])
    with pytest.raises(InputError, match="expected"):
        lm.advance(fresh("gru").initial_state(), [3])
    for bad in ({"cell": "lstn"}, {"layers": 0}, {"hidden": 0}, {"dropout": 1.0}):
        with pytest.raises(InputError):
            LanguageModelConfig(**bad)
    for bad in ({"unit": "syllable"}, {"fold": "x"}, {"epochs": 0}, {"bptt": 0}, {"lr": 0.0}):
        with pytest.raises(InputError):
            NeuralConfig(**bad)


def test_training_ends_when_the_rate_is_used_up():
    model = LanguageModelConfig(hidden=4)
    config = NeuralConfig(model=model, epochs=50, batch=4, bptt=9, lr=0.3, lr_factor=0.01)
    epochs = []
    train(regular(20, 1), [["a", "y"]], config, on_epoch=lambda lm, e: epochs.append(e))
    assert len(epochs) < 50
    assert [e.is_best for e in epochs].count(False) == 2


def test_a_loss_that_is_not_finite_is_one_line():
    config = NeuralConfig(model=LanguageModelConfig(hidden=4), epochs=2, batch=4)

    def poison(lm, epoch):
        torch.nn.init.constant_(lm.model.bias, math.nan)

    with pytest.raises(InputError, match="epoch 2: the loss is not finite; try a lower lr"):
        train(regular(50, 1), regular(5, 2), config, on_epoch=poison)
    # Higher than a configuration may say.
    config.lr = 1e30
    with pytest.raises(InputError, match="epoch 1: the loss is not finite"):
        train(regular(50, 1), regular(5, 2), config)


def test_vocabulary():
    text = [["a", "b", "b", UNK, UNK], ["c", "b", "a"]]
    assert vocabulary(text, 1) == ["a", "b", "c"]
    assert vocabulary(text, 2) == ["a", "b"]
    with pytest.raises(InputError, match="vocabulary of 1 tokens"):
        vocabulary(text, 3)


@given(st.text())
def test_split_and_join(line):
    for unit in ("word", "char", "phone"):
        tokens = split(line, unit)
        assert all(token.split() == [token] for token in tokens)
        assert join(tokens, unit) == " ".join(line.split())


def test_reading_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\ufeffone two\r\n\n  three  four\n", encoding="utf-8")
    assert read_sentences(path, "word") == [["one", "two"], ["three", "four"]]
    assert read_sentences(path, "char")[0] == [*"one", "<space>", *"two"]
    path.write_text("ix aa q\n")
    assert read_sentences(path, "phone", "timit39") == [["ih", "aa"]]
    path.write_text("aa\nqq\n")
    with pytest.raises(InputError, match=r"text\.txt:2: phone 'qq'"):
        read_sentences(path, "phone", "timit39")
    with pytest.raises(InputError, match="is for phones"):
        read_sentences(path, "word", "timit39")
    path.write_text("fine\nnot </s> fine\n")
    with pytest.raises(InputError, match=r"text\.txt:2: '</s>'"):
        read_sentences(path, "word")
    path.write_text(" \n\n")
    with pytest.raises(InputError, match="empty"):
        read_sentences(path, "word")
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="not UTF-8"):
        read_sentences(path, "word")
    with pytest.raises(InputError, match="No such file"):
        read_sentences(tmp_path / "nowhere", "word")


def test_reading_manifests(tmp_path):
    path = tmp_path / "train.jsonl"
    line = {"audio_filepath": "a.wav", "duration": 1.0, "text": "one two", "phones": ["ix", "aa"]}
    path.write_text(json.dumps(line) + "\n")
    assert read_sentences(path, "word") == [["one", "two"]]
    assert read_sentences(path, "phone", "timit39") == [["ih", "aa"]]
    path.write_text(json.dumps(line | {"id": "u1", "phones": ["a b"]}) + "\n")
    with pytest.raises(InputError, match="utterance u1: 'a b'"):
        read_sentences(path, "phone")


@pytest.fixture(scope="module")
def ngram():
    return NGram.estimate(regular(100, 3), 3)


def test_the_ngrams_whole_distribution_is_its_lookups(ngram):
    state = ngram.start
    for token in ["b", "y", "c"]:
        log_probs = next_log_probs(ngram, state)
        for i, other in enumerate(ngram.tokens):
            expected, _ = ngram.advance(state, other)
            assert log_probs[i] == pytest.approx(expected * math.log(10))
        _, state = ngram.advance(state, token)


def test_a_text_with_unknown_words_gives_them_their_share():
    lm = NGram.estimate([["a", UNK], ["b", UNK, "a"], [UNK], ["b", "a"]], 2)
    p = {t: 10 ** lm.advance(lm.start, t)[0] for t in (*"ab", UNK, EOS)}
    assert sum(p.values()) == pytest.approx(1.0)
    assert p[UNK] > p[EOS]


def test_samples_of_the_ngram_follow_its_distribution(ngram):
    drawn = sample(ngram, ["b", "y"], count=2000, seed=1, max_tokens=1)
    found = sum(tokens == ["c"] for tokens in drawn) / len(drawn)
    state = ngram.start
    for token in ["b", "y"]:
        _, state = ngram.advance(state, token)
    p = {t: 10 ** ngram.advance(state, t)[0] for t in (*"abcxy", EOS)}
    assert found == pytest.approx(p["c"] / sum(p.values()), abs=0.02)


@pytest.mark.parametrize("lm", [fresh(), NGram.estimate(["ab", "abc", "abcd", "abcde"], 2)])
def test_sampling(lm):
    drawn = sample(lm, ["a"], count=20, seed=3, max_tokens=5)
    assert drawn == sample(lm, ["a"], count=20, seed=3, max_tokens=5)
    assert drawn != sample(lm, ["a"], count=20, seed=4, max_tokens=5)
    assert max(map(len, drawn)) <= 5
    assert not {UNK, BOS, EOS} & {t for tokens in drawn for t in tokens}
    greedy = sample(lm, ["a"], count=3, seed=1, top_k=1, max_tokens=5)
    assert greedy == sample(lm, ["a"], count=3, seed=2, top_k=1, max_tokens=5)
    assert greedy == sample(lm, ["a"], count=3, seed=1, temperature=1e-9, max_tokens=5)
    firsts = {tuple(t) for t in sample(lm, ["a"], count=200, seed=1, top_k=2, max_tokens=1)}
    assert len(firsts) == 2
    assert sample(lm, ["nowhere"], count=1, seed=1, max_tokens=2)
    for bad in ({"temperature": 0.0}, {"top_k": -1}, {"max_tokens": 0}, {"count": 0}):
        with pytest.raises(InputError, match="sampling"):
            sample(lm, [], **({"count": 1, "seed": 1} | bad))


def test_summary_follows_kenlm(ngram):
    text = [["a", "x", "c"], ["b", "nowhere"]]
    scores = token_scores(ngram, text)
    found = summarize(ngram, text, scores)
    assert (found.tokens, found.oov) == (7, 1)
    total = sum(map(sum, scores))
    assert found.log10_prob == pytest.approx(total)
    assert found.perplexity == pytest.approx(10 ** (-total / 7))
    assert found.perplexity_without_oov == pytest.approx(10 ** (-(total - scores[1][1]) / 6))
