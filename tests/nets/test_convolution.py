import torch

from asr.nets.convolution import Convolutions


def test_a_hand_made_filter():
    """The centre of the kernel alone, of both channels: every second bin of their sum."""
    net = Convolutions((1,), n_features=10, n_bins=5)
    with torch.no_grad():
        net.layers[0].weight.zero_()
        net.layers[0].weight[0, :, 1, 1] = 1
        net.layers[0].bias.zero_()
    x = torch.arange(20.0).view(1, 2, 10)
    assert net.size == 3
    assert net(x, torch.tensor([2])).tolist() == [[[5, 9, 13], [25, 29, 33]]]


def test_neighbouring_frames_are_seen_and_padding_is_not():
    net = Convolutions((1, 1), n_features=4, n_bins=4)
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.fill_(1)
            layer.bias.fill_(1)
    x = torch.zeros(2, 5, 4)
    x[:, 2] = 1
    y = net(x, torch.tensor([5, 3]))
    assert (y[1, 3:] == 0).all()
    assert y[0, 0, 0] > 1  # through two layers, from two frames away
    torch.testing.assert_close(y[1:, :3], net(x[1:, :3], torch.tensor([3])))
