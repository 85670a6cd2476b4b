"""A model from letters to phones: words in, their likeliest pronunciations out.

A model directory holds:
    weights.safetensors  the weights of its nets, as float16
    config.json          its nets and its search
    letters.txt          the letters, one a line
    phones.txt           the phones, as a model's labels
    spoken.txt.gz        what its n-grams are estimated from: a word a line, and the phones of each
                         of its letters, tabs between
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from asr.decode.config import MOST_WEIGHT
from asr.decode.search.beam import BeamOptions, label_search
from asr.decode.search.each import NBest, acoustic_scores, search_each
from asr.errors import InputError
from asr.g2p.joint import Cut, Joint, UnitGram
from asr.g2p.net import LettersToPhones, NetConfig
from asr.g2p.words import Letters, padded
from asr.labels import Labels
from asr.lm.ngram import BoundNGram, NGram
from asr.nets.acoustic import filled, read_part
from asr.system.device import device_of
from asr.system.files import write_aside, write_text
from asr.system.memory import loading
from asr.system.settings import check, setting

FORMAT, WHAT = "carousel-g2p-2", "a model from letters to phones"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
LETTERS, PHONES, SPOKEN = "letters.txt", "phones.txt", "spoken.txt.gz"
#: Words that a net sees at once, at most, and letters: few where words are long.
MOST_WORDS, MOST_LETTERS = 512, 16_384
#: Pronunciations of a word that are compared at least; what they share is their probability.
COMPARED = 8


@dataclass(frozen=True)
class Spoken:
    """Words cut letter by letter, and the orders of the n-grams that are estimated from them."""

    cuts: Sequence[Cut]
    order: int
    joint_order: int

    @cached_property
    @loading()
    def ngram(self) -> NGram:
        """Over phones; estimated in less time than it takes to read one."""
        return NGram.estimate((tuple(chain(*cut.phones)) for cut in self.cuts), self.order)

    @cached_property
    @loading()
    def joint(self) -> UnitGram:
        """Over letters with their phones."""
        return UnitGram.estimate(self.cuts, self.joint_order)


@dataclass
class SearchConfig:
    """The search for pronunciations, in which n-grams have their say."""

    beam: int = setting(16, "prefixes that the search keeps", 1, 1000)
    lm_weight: float = setting(0.5, "of the n-gram over phones", 0, MOST_WEIGHT)
    bonus: float = setting(0.0, "for each phone", -MOST_WEIGHT, MOST_WEIGHT)
    joint_weight: float = setting(
        0.5, "of the n-gram over letters with their phones, in a second pass", 0, MOST_WEIGHT
    )

    def __post_init__(self) -> None:
        check(self, "g2p search")


class Pronunciation(NamedTuple):
    """One way to say a word, and its probability among those compared."""

    phones: tuple[str, ...]
    probability: float


class Said(NamedTuple):
    """What a net says of some words.

    places: theirs among all; letters (N, L) with n_letters (N,), edges included; log_probs
    (N, T, V) with lens (N,) of frames.
    """

    places: list[int]
    letters: NDArray[np.int64]
    n_letters: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    lens: NDArray[np.int64]


class Found(NamedTuple):
    """Pronunciations of some words that are compared. joint: of the n-gram over letters, (N, K)."""

    places: list[int]
    nbest: NBest
    joint: NDArray[np.float64]


@dataclass(frozen=True)
class Pronouncer:
    """Nets over the same letters and phones, which are heard together, and their n-grams."""

    letters: Letters
    phones: Labels
    nets: tuple[LettersToPhones, ...]
    spoken: Spoken
    search: SearchConfig = field(default_factory=SearchConfig)

    def pronounce(self, words: Sequence[str], nbest: int = 1) -> list[list[Pronunciation]]:
        """The likeliest pronunciations of each word, best first.

        None of a word with letters that the model does not know.
        """
        return self.ways(len(words), self.found(self.hear(words), nbest), nbest)

    def found(self, heard: Iterable[Sequence[Said]], nbest: int = 1) -> Iterator[Found]:
        """What is compared of words that were heard."""
        for said in heard:
            compared = self._nbest(said, max(nbest, COMPARED))
            letters, n_letters = said[0].letters[:, 1:], said[0].n_letters - 2
            yield Found(said[0].places, compared, self._joint.scores(letters, n_letters, compared))

    def ways(
        self, n_words: int, found: Iterable[Found], nbest: int = 1
    ) -> list[list[Pronunciation]]:
        """`pronounce` of words for which pronunciations were found."""
        all_ways: list[list[Pronunciation]] = [[] for _ in range(n_words)]
        for some in found:
            for place, ways in zip(some.places, self._read(some, nbest), strict=True):
                all_ways[place] = ways
        return all_ways

    @torch.inference_mode()
    def hear(self, words: Sequence[str]) -> Iterator[list[Said]]:
        """What each net says of the words that it can read, those of about one length together."""
        rows = {i: row for i, word in enumerate(words) if (row := self.letters.encode(word))}
        by_length = sorted(rows, key=lambda i: -len(rows[i]))
        first = 0
        while first < len(rows):
            most = max(1, MOST_LETTERS // len(rows[by_length[first]]))
            places = by_length[first : first + min(MOST_WORDS, most)]
            first += len(places)
            table, lens = padded([rows[i] for i in places])
            said = []
            for net in self.nets:
                device = device_of(net)
                inputs = (torch.from_numpy(values).to(device) for values in (table, lens))
                log_probs = net.eval()(*inputs)[-1].cpu().numpy()
                said.append(Said(places, table, lens, log_probs, lens * net.config.frames))
            yield said

    def _nbest(self, heard: Sequence[Said], n: int) -> NBest:
        """The ``n`` best that each net finds, scored by all nets; in no order where they are many.

        What several nets find is there several times.
        """
        options = BeamOptions(
            beam=max(self.search.beam, n),
            lm_weight=self.search.lm_weight,
            bonus=self.search.bonus,
        )
        search = label_search(options, self._bound, len(self.phones))
        found = [search_each(said.log_probs, said.lens, search, n) for said in heard]
        if len(found) == 1:
            return found[0]
        most = max(f.labels.shape[2] for f in found)
        labels = [np.pad(f.labels, ((0, 0), (0, 0), (0, most - f.labels.shape[2]))) for f in found]
        joined = NBest(
            np.concatenate(labels, axis=1),
            *(np.concatenate(parts, axis=1) for parts in zip(*(f[1:] for f in found), strict=True)),
        )
        sums = [acoustic_scores(s.log_probs, s.lens, joined.labels, joined.n_labels) for s in heard]
        return joined._replace(acoustic=np.mean(sums, axis=0))

    def _read(self, found: Found, n: int) -> Iterator[list[Pronunciation]]:
        """Each word's ``n`` best, best first."""
        nbest = found.nbest
        scores = nbest.acoustic + nbest.added + self.search.joint_weight * found.joint
        scores[nbest.n_labels < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        for labels, n_labels, score, best in zip(*nbest[:2], scores, order, strict=True):
            ways: dict[tuple[int, ...], float] = {}
            for k in best.tolist():
                if n_labels[k] > 0:
                    ways.setdefault(tuple(labels[k, : n_labels[k]].tolist()), score[k])
            shares = np.exp(np.array(list(ways.values())) - score[best[0]])
            shares /= max(shares.sum(), 1e-300)
            yield [
                Pronunciation(tuple(self.phones.decode(way)), float(share))
                for way, share in zip(list(ways)[:n], shares, strict=False)
            ]

    @cached_property
    def _bound(self) -> BoundNGram:
        return self.spoken.ngram.bind(self.phones.symbols)

    @cached_property
    def _joint(self) -> Joint:
        return Joint.of(self.spoken.joint, self.letters, self.phones)

    def to(self, device: torch.device) -> Pronouncer:
        """This model with its nets on a device, moved in place."""
        for net in self.nets:
            net.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write a model directory; each file is replaced whole, the weights last."""
        folder = Path(folder)
        config = {
            "format": FORMAT,
            "folded": self.letters.folded,
            "order": self.spoken.order,
            "joint_order": self.spoken.joint_order,
            "search": asdict(self.search),
            "nets": [asdict(net.config) for net in self.nets],
        }
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        write_text(folder / LETTERS, "".join(letter + "\n" for letter in self.letters.symbols))
        self.phones.save(folder / PHONES)
        spoken = "".join(
            "\t".join((cut.word, *map(" ".join, cut.phones))) + "\n"
            for cut in sorted(self.spoken.cuts)
        )
        with write_aside(folder / SPOKEN) as aside:
            aside.write_bytes(gzip.compress(spoken.encode(), mtime=0))
        self.save_weights(folder)

    def save_weights(self, folder: Path) -> None:
        """Replace the weights of a model directory, nothing else."""
        weights = {
            f"{i}.{name}": tensor.half().cpu().contiguous()
            for i, net in enumerate(self.nets)
            for name, tensor in net.state_dict().items()
        }
        with write_aside(folder / WEIGHTS) as aside:
            aside.write_bytes(safetensors.torch.save(weights))

    @classmethod
    @loading()
    def load(cls, folder: Path) -> Pronouncer:
        """Read what `save` wrote.

        Raises:
            InputError: something is missing, of another version, or of another shape than the
                configuration says; the line names the file.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(
                f"{folder}: not {WHAT}: expected {CONFIG} there, as asr g2p train writes"
            )
        path = folder / WEIGHTS
        folded, orders, search, configs = read_part(folder / CONFIG, WHAT, _configured)
        letters = read_part(
            folder / LETTERS,
            WHAT,
            lambda path: Letters(tuple(path.read_text("utf-8").split("\n")[:-1]), folded),
        )
        spoken = Spoken(read_part(folder / SPOKEN, WHAT, _cuts), *orders)
        tensors = read_part(path, WHAT, lambda path: safetensors.torch.load(path.read_bytes()))
        phones = Labels.load(folder / PHONES)
        nets = []
        for i, config in enumerate(configs):
            own = {k.removeprefix(f"{i}."): t for k, t in tensors.items() if k.startswith(f"{i}.")}
            make = partial(LettersToPhones, config, len(letters.symbols), len(phones))
            nets.append(filled(make, own, path, f"{CONFIG}, {LETTERS} and {PHONES}").eval())
        return cls(letters, phones, tuple(nets), spoken, search)


def _configured(path: Path) -> tuple[bool, tuple[int, int], SearchConfig, list[NetConfig]]:
    """Whether letters are folded, the orders of the n-grams, and the other settings."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if values["format"] != FORMAT:
        raise InputError(f"expected a model of format {FORMAT!r}")
    search = SearchConfig(**values["search"])
    nets = [NetConfig(**net) for net in values["nets"]]
    return values["folded"], (int(values["order"]), int(values["joint_order"])), search, nets


def _cuts(path: Path) -> list[Cut]:
    """Read the lines of words cut letter by letter. What letters share is split once."""
    split = cache(lambda phones: tuple(phones.split()))
    cuts = []
    for line in gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]:
        word, *parts = line.split("\t")
        if len(word) != len(parts):
            raise ValueError(f"expected the phones of each letter of {word!r}")
        cuts.append(Cut(word, tuple(map(split, parts))))
    return cuts
