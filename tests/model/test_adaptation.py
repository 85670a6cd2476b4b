"""Nets adapted to speakers: what factors repair, and what they leave alone."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.errors import InputError
from asr.model.adaptation import _portions, adapted_by, learned
from asr.model.bundle import Bundle
from asr.model.emissions import Heard, emissions_of
from asr.model.ensemble import combined
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig
from asr.nets.scales import scaled
from asr.recognize.evaluate import decode_set, decoders_of, teacher_of
from asr.types import Hypothesis


@pytest.fixture
def bundle(tone_run):
    return load_bundle(tone_run)


def estranged(run, seed):
    """A model to which speakers are strange: a third of its last units count twice, or hardly."""
    bundle = load_bundle(run)
    generator = torch.Generator().manual_seed(seed)
    weight = bundle.model.output.weight
    drawn = torch.rand(weight.shape[1], generator=generator)
    weight.data *= torch.where(drawn < 0.35, 1.9, torch.where(drawn > 0.65, 0.1, 1.0))
    return bundle


@pytest.fixture
def strange(tone_run):
    return estranged(tone_run, 3)


class Says:
    """A teacher that finds the same in everything."""

    def __init__(self, *labels):
        self.labels = labels

    def batch(self, log_probs, n_threads):
        spans = [(i, i + 1) for i in range(len(self.labels))]
        found = Hypothesis(self.labels, tuple(spans), (1.0,) * len(spans), 0.0, 0.0)
        return [[found] for _ in log_probs]


def adapted(bundle: Bundle, said, teacher=None):
    outputs = adapted_by(bundle, teacher or teacher_of(bundle))
    return emissions_of(bundle, said, {}, outputs=outputs)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def errors(bundle, said, log_probs):
    greedy = bundle.make_decoder(decoders_of(bundle)["greedy"])
    return decode_set(said, log_probs, bundle, greedy).scores["PER"].errors


@pytest.mark.parametrize("conv", [(), (3, 2)])
def test_factors_are_one_to_begin_with(conv):
    config = RecurrentConfig(conv=conv, layers=2, hidden=8, layer_norm=bool(conv))
    net = AcousticModel(config, 30, 5, 10).eval()
    other, amplitudes = scaled(net)
    generator = torch.Generator().manual_seed(1)
    x, lens = torch.randn(2, 30, 30, generator=generator), torch.tensor([30, 17])
    with torch.no_grad():
        assert torch.equal(net(x, lens)[0], other(x, lens)[0])
    sizes = [net.conv.size] if net.conv is not None else []
    assert [tuple(a.shape) for a in amplitudes] == [(n,) for n in (*sizes, 16, 16)]
    # All of them count.
    loss = other(x, lens)[0][..., 1].sum()
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, amplitudes))
    # The weights are the same memory, and are not learned.
    own = {p.data_ptr() for p in net.parameters()}
    assert {p.data_ptr() for p in other.parameters() if not p.requires_grad} == own
    assert all(p.requires_grad for p in net.parameters())


def test_factors_repair_what_is_strange_to_a_net(tone_run, said):
    before = after = 0
    for seed in range(6):
        strange = estranged(tone_run, seed)
        before += errors(strange, said, emissions_of(strange, said, {}))
        after += errors(strange, said, adapted(strange, said))
    assert before >= 20
    assert after <= 0.7 * before


def test_a_net_is_left_as_it_is(bundle, said):
    weights = {name: w.clone() for name, w in bundle.model.state_dict().items()}
    before = emissions_of(bundle, said, {})
    changed = adapted(bundle, said)
    assert any(not np.array_equal(before[name], changed[name]) for name in before)
    assert all(torch.equal(w, weights[n]) for n, w in bundle.model.state_dict().items())
    assert all(p.grad is None for p in bundle.model.parameters())
    assert_equal(emissions_of(bundle, said, {}), before)


def test_neither_company_nor_order_matter(strange, said):
    together = adapted(strange, said)
    assert len({u.speaker for u in said}) == 2
    alone = {}
    for speaker in {u.speaker for u in said}:
        alone |= adapted(strange, [u for u in said if u.speaker == speaker])
    assert_equal(together, alone)
    shuffled = random.Random(1).sample(said, len(said))
    found = adapted(strange, shuffled)
    assert_equal(together, {u.id: found[u.id] for u in said})


def test_a_speaker_of_one_utterance(strange, said):
    own = [replace(u, speaker=u.id) for u in said]
    found = adapted(strange, own)
    assert_equal(found, {u.id: adapted(strange, [u])[u.id] for u in own})
    assert all(np.isfinite(x).all() for x in found.values())


def test_where_nothing_is_understood_the_net_stays(bundle, said):
    assert_equal(adapted(bundle, said, Says()), emissions_of(bundle, said, {}))
    # More than there are frames for was never said.
    labels = (2, 3) * 500
    assert_equal(adapted(bundle, said, Says(*labels)), emissions_of(bundle, said, {}))


def test_each_net_of_an_ensemble_learns_what_all_understand(bundle, strange, said):
    both = combined({"one": bundle, "other": strange})
    teacher = teacher_of(both)
    found = adapted(both, said, teacher)
    mine = [u for u in said if u.speaker == said[0].speaker]
    heard = emissions_of(both, mine, {})
    labels = {u.id: teacher.batch([heard[u.id]])[0][0].labels for u in mine}

    class Knows(Says):
        def batch(self, log_probs, n_threads):
            # Long ones come first.
            inorder = sorted(mine, key=lambda u: -len(heard[u.id]))
            return [Says(*labels[u.id]).batch([0], 1)[0] for u in inorder]

    assert len({len(x) for x in heard.values()}) == len(mine)
    one, other = (adapted(each, mine, Knows()) for each in (bundle, strange))
    for name in one:
        expected = np.logaddexp(one[name], other[name]) - np.log(2)
        np.testing.assert_allclose(found[name], expected, atol=1e-4)


def test_learning_fits_labels(strange, said):
    x = np.random.default_rng(1).normal(size=(40, strange.features.size)).astype(np.float32)
    labels = [2, 3, 2]

    def loss(net):
        with torch.no_grad():
            log_probs, _ = net(torch.from_numpy(x)[None], torch.tensor([40]))
        of = torch.nn.functional.ctc_loss
        return of(log_probs[0], torch.tensor(labels), torch.tensor(40), torch.tensor(3)).item()

    assert loss(learned(strange.model, [(x, labels)])) < 0.8 * loss(strange.model)


def test_what_cannot_be_adapted_is_refused(bundle):
    with pytest.raises(InputError, match="trained by CTC; this one was by framewise"):
        adapted_by(replace(bundle, criterion="framewise"), Says())
    with pytest.raises(InputError, match="for models that asr train wrote"):
        adapted_by(replace(bundle, model=None), Says())


def test_ten_minutes_are_learned_from_by_themselves():
    def heard(name, speaker, n):
        return Heard(name, np.full((n, 2), n, np.float32), None, speaker)

    several = [heard("a", "x", 40_000), heard("b", "y", 5), heard("c", "x", 30_000)]
    several += [heard("d", "x", 10_000), heard("e", "y", 7)]
    assert list(_portions(several)) == [[0], [2, 3], [4, 1]]
