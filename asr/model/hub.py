"""Models of the Hugging Face hub, fetched because the user named them."""

from __future__ import annotations

from pathlib import Path

from asr.errors import InputError

HUB = "hf:"
#: Characters of what the hub says that a message shows.
MOST_SHOWN = 240
#: What model directories are made of: tensors and text, nothing that could be executed.
FILES = ["*.safetensors", "*.json", "*.txt", "*.arpa", "*.md"]


def fetched(name: str) -> Path:
    """``hf:USER/NAME`` or ``hf:USER/NAME@REVISION`` -> the folder of its files on this machine.

    What is there from before is not fetched again: huggingface_hub keeps it where ``HF_HOME`` says,
    and ``HF_HUB_OFFLINE=1`` keeps it from asking. The revision is a branch, a tag or a commit.

    Raises:
        InputError: huggingface_hub is not installed, there is no such model, or the hub cannot be
            reached and the files are not here.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"{name}: install what fetches from the hub: pip install 'carousel-asr[hub]'"
        ) from error
    repository, _, revision = name.removeprefix(HUB).partition("@")
    if repository.count("/") != 1:
        raise InputError(f"{name}: expected hf:USER/NAME, perhaps with @REVISION")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=FILES))
    except Exception as error:  # of the network, of the hub, of the file system: many kinds
        reason = " ".join(str(error).split())[:MOST_SHOWN]
        raise InputError(f"{name}: cannot be fetched ({reason})") from error
