import pytest
import torch
from tones import build


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # The nets of the tests are far too small for two.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """The tone corpus; read only."""
    return build(tmp_path_factory.mktemp("tones") / "corpus")
