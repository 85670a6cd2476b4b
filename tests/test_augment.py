import torch

from asr.augment import AugmentConfig, spec_augment

CONFIG = AugmentConfig(freq_masks=1, freq_width=4, time_masks=1, time_width=10, time_share=0.5)


def test_masks_are_bands_within_their_limits():
    lens = torch.tensor([40, 8])
    for seed in range(50):
        x = torch.ones(2, 40, 12)
        masked = spec_augment(x, lens, CONFIG, torch.Generator().manual_seed(seed)) == 0
        for i, most in enumerate((10, 4)):
            bins, frames = masked[i].all(0), masked[i].all(1)
            assert bins.sum() <= 4
            assert frames.sum() <= most
            assert (masked[i] == (bins[None, :] | frames[:, None])).all()
            for band in (bins, frames):
                where = band.nonzero().flatten().tolist()
                assert where == list(range(where[0], where[-1] + 1)) if where else True
            assert not frames[int(lens[i]) :].any()


def test_same_generator_same_masks_and_each_utterance_its_own():
    x = torch.randn(6, 50, 20, generator=torch.Generator().manual_seed(0))
    lens = torch.full((6,), 50)
    a, b = (spec_augment(x, lens, CONFIG, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert len({tuple((row == 0).flatten().tolist()) for row in a}) > 1


def test_no_masks_no_change():
    x = torch.randn(2, 9, 4)
    none = AugmentConfig(freq_masks=0, time_masks=0)
    assert torch.equal(spec_augment(x, torch.tensor([9, 5]), none, torch.Generator()), x)
