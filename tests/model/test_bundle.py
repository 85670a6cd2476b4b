"""Tensor files: what is saved comes back, and what was changed since is noticed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import files_up_to

from asr.errors import InputError
from asr.nets.tensors import load_tensors, save_tensors

TENSORS = {
    "matrix": torch.arange(6.0).reshape(2, 3).T,
    "half": torch.ones(3, dtype=torch.bfloat16),
    "step": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
}
METADATA = {"state": '{"step": 7}', "format": "test"}


def test_tensors_and_metadata_come_back(tmp_path):
    save_tensors(tmp_path / "x.safetensors", TENSORS, METADATA)
    tensors, metadata = load_tensors(tmp_path / "x.safetensors")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


@pytest.mark.parametrize("room", [0, 50, 100_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, room):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, METADATA)
    with files_up_to(room), pytest.raises(InputError, match=r"x\.safetensors: cannot be written"):
        save_tensors(path, {"large": torch.zeros(50_000)}, METADATA)
    assert list(tmp_path.iterdir()) == [path]
    assert load_tensors(path)[1] == METADATA


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    save_tensors(path, TENSORS, METADATA)
    return path, path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(saved, at, bit):
    path, whole = saved
    data = bytearray(whole)
    data[int(at * len(data))] ^= 1 << bit
    spoilt = path.with_name("spoilt.safetensors")
    spoilt.write_bytes(data)
    # Unless it is in the header's blank space or in the checksum's name.
    try:
        tensors, metadata = load_tensors(spoilt)
    except InputError as error:
        assert "spoilt.safetensors" in str(error)  # noqa: PT017
    else:
        assert metadata.items() >= METADATA.items()
        assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


@given(length=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_noticed(saved, length):
    path, whole = saved
    cut = path.with_name("cut.safetensors")
    cut.write_bytes(whole[: int(length * len(whole))])
    with pytest.raises(InputError, match=r"cut.safetensors"):
        load_tensors(cut)


def test_the_same_is_the_same_byte_for_byte(tmp_path):
    many = {**METADATA, **{f"key {n}": f'"ä\n{n}' for n in range(20)}}
    paths = [tmp_path / f"{n}.safetensors" for n in range(4)]
    for path in paths:
        save_tensors(path, TENSORS, many)
    assert len({path.read_bytes() for path in paths}) == 1
    assert load_tensors(paths[0])[1] == many
