"""Text for language models: sentences as lists of tokens, and the vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from asr.data.manifest import is_manifest, read_manifest
from asr.errors import InputError
from asr.labels import fold, split, unit_symbols
from asr.lm.arpa import BOS, EOS, UNK, UNKNOWNS
from asr.system.text import plain_words, read_text


def read_sentences(
    path: Path,
    unit: str,
    folding: str = "none",
    made_alike: Callable[[str], str] = str,
) -> list[list[str]]:
    """Read a text, a sentence a line, or a manifest (.jsonl), whose utterances are the sentences.

    unit: word, char or phone; the phones of a text are what white space separates. folding: of
    phones. made_alike: what is done to each text, such as `plain_words`. Empty lines and utterances
    are no sentences, and ``<UNK>`` is the unknown token, too.

    Raises:
        InputError: no such file, not UTF-8, no sentence in it, or a token that cannot be one, with
            its line or utterance.
    """
    path = Path(path)
    if folding != "none" and unit != "phone":
        raise InputError(f"folding {folding!r} is for phones, not for unit {unit!r}")
    found: list[tuple[str, list[str]]] = []
    if is_manifest(path):
        for utterance in read_manifest(path):
            where = f"{path}: utterance {utterance.id}"
            if utterance.text:
                utterance = replace(utterance, text=made_alike(utterance.text))
            found.append((where, unit_symbols(utterance, unit, folding)))
    else:
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            where = f"{path}:{number}"
            tokens = split(made_alike(line), unit)
            found.append((where, fold(tokens, folding, where) if unit == "phone" else tokens))
    for where, tokens in found:
        for token in tokens:
            if token in (BOS, EOS) or token.split() != [token]:
                raise InputError(f"{where}: {token!r} cannot be a token of a language model")
    sentences = [[UNK if t in UNKNOWNS else t for t in tokens] for _, tokens in found if tokens]
    if not sentences:
        raise InputError(f"{path}: empty: expected at least one sentence")
    return sentences


def vocabulary(sentences: Iterable[Sequence[str]], min_count: int) -> list[str]:
    """The tokens that occur at least ``min_count`` times, sorted; ``<unk>`` is not among them.

    Raises:
        InputError: fewer than two, which leaves nothing to learn.
    """
    counts = Counter(token for sentence in sentences for token in sentence)
    kept = sorted(token for token, n in counts.items() if n >= min_count and token != UNK)
    if len(kept) < 2:
        raise InputError(
            f"language model text: a vocabulary of {len(kept)} tokens (of {len(counts)}, those "
            f"that occur {min_count} times or more) leaves nothing to learn: expected 2 or more"
        )
    return kept


def with_unknowns(sentences: Iterable[Sequence[str]], known: Collection[str]) -> list[list[str]]:
    """The sentences with ``<unk>`` for each token that is not ``known``."""
    return [[t if t in known else UNK for t in sentence] for sentence in sentences]


def held_out(sentences: list[list[str]], path: Path) -> tuple[list[list[str]], list[list[str]]]:
    """All sentences but the last tenth, to train on, and that tenth, to measure on.

    Raises:
        InputError: there is a single one, in the text ``path``.
    """
    n_held = max(1, len(sentences) // 10)
    if n_held == len(sentences):
        raise InputError(f"{path}: a single sentence: nothing can be held out; give --dev TEXT")
    return sentences[:-n_held], sentences[-n_held:]


def unplain(sentences: Iterable[Sequence[str]]) -> list[str]:
    """Up to three words with capitals or punctuation; none of a text that is all in capitals."""
    words = dict.fromkeys(chain(*sentences))
    shouted = all(word == word.upper() for word in words)
    changed = (
        word
        for word in words
        if plain_words(word) != (word.lower() if shouted else word) and word not in UNKNOWNS
    )
    return list(islice(changed, 3))
