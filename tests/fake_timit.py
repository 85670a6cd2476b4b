"""A fake TIMIT of full size: its tree, counts and test speakers, made-up sentences and sound."""

import itertools
import random
import struct
from pathlib import Path

import numpy as np

from asr.corpora.timit import CORE_TEST_SPEAKERS, DEV_SPEAKERS
from asr.corpora.timit_sample import SPEAKERS
from asr.labels import TIMIT_61_PHONES

N_TRAIN_SPEAKERS, N_OTHER_TEST_SPEAKERS = 462, 94
SENTENCES = ("sa1", "sa2", "si10", "si640", "si1270", "sx1", "sx91", "sx181", "sx271", "sx361")
#: set -> (utterances without SA, phones without q, q)
PHONES = {"dev": (400, 15057, 231), "core": (192, 7215, 118), "other": (3696 + 752, 38 * 4448, 900)}
WORDS = "She had your dark suit in greasy wash water all year don't ask me to carry an".split()


def build(root: Path, upper: bool = True, riff: bool = False, samples_per_phone: int = 16) -> Path:
    """Build the tree below ``root``/TIMIT and return that folder.

    upper: case of folder and file names. riff: a ``.WAV.wav`` lies beside each SPHERE file.
    samples_per_phone: length of each phone at 16 kHz (noise at a level of the phone's own).
    """
    rng = random.Random(0)
    noise = np.random.default_rng(0)
    sounds = {
        phone: (noise.standard_normal(samples_per_phone) * 100 * (1 + i)).astype("<i2").tobytes()
        for i, phone in enumerate(TIMIT_61_PHONES)
    }
    speakers = _speakers(rng)
    lengths = {name: _phone_counts(*counts) for name, counts in PHONES.items()}
    inner = itertools.cycle(p for p in TIMIT_61_PHONES if p not in ("q", "h#"))
    case = str.upper if upper else str.lower
    top = Path(root) / case("timit")
    for number, (speaker, part) in enumerate(speakers):
        in_test = part != "train"
        folder = top / case("test" if in_test else "train") / case(f"dr{number % 8 + 1}")
        folder = folder / case(speaker)
        folder.mkdir(parents=True)
        for sentence in SENTENCES:
            n_phones, n_q = (20, 1)
            if not sentence.startswith("sa"):
                n_phones, n_q = next(lengths[part if part in lengths else "other"])
            phones = ["h#", *itertools.islice(inner, n_phones - 2), "h#"]
            for _ in range(n_q):
                phones.insert(rng.randrange(1, len(phones)), "q")
            pcm = b"".join(sounds[phone] for phone in phones)
            base = folder / case(sentence)
            _write(base, case, _sphere(pcm), _labels(phones, samples_per_phone))
            if riff:
                (folder / f"{case(sentence)}{case('.wav')}.wav").write_bytes(_riff(pcm))
    (top / case("doc")).mkdir()
    (top / case("doc") / case("readme.txt")).write_text("not TIMIT")
    return top


def build_sample(root: Path, samples_per_phone: int = 16) -> Path:
    """Build a sample of it in NLTK's layout below ``root``/timit and return that folder."""
    rng, top = random.Random(0), Path(root) / "timit"
    for speaker in sorted(SPEAKERS):
        folder = top / f"dr1-{speaker}"
        folder.mkdir(parents=True)
        for sentence in SENTENCES:
            phones = ["h#", *rng.sample([p for p in TIMIT_61_PHONES if p != "h#"], 10), "h#"]
            levels = [rng.randrange(1, 1000) for _ in phones]
            pcm = b"".join(struct.pack("<h", n) * samples_per_phone for n in levels)
            labels = _labels(phones, samples_per_phone)
            _write(folder / sentence, str.lower, _riff(pcm), labels)
    (top / "timitdic.txt").write_text("; words\nshe  /sh iy1/\n")
    return top


def _speakers(rng: random.Random) -> list[tuple[str, str]]:
    real = [(s, "dev") for s in sorted(DEV_SPEAKERS)] + [
        (s, "core") for s in sorted(CORE_TEST_SPEAKERS)
    ]
    taken = {speaker for speaker, _ in real}
    made_up: list[str] = []
    while len(made_up) < N_TRAIN_SPEAKERS + N_OTHER_TEST_SPEAKERS:
        name = rng.choice("fm") + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=3)) + "0"
        if name not in taken:
            taken.add(name)
            made_up.append(name)
    train = [(name, "train") for name in made_up[:N_TRAIN_SPEAKERS]]
    return train + [(name, "test") for name in made_up[N_TRAIN_SPEAKERS:]] + real


def _phone_counts(n_utterances: int, n_phones: int, n_q: int):
    """Spread phones and q evenly: yield (phones without q, q) of each utterance."""
    for i in range(n_utterances):
        yield tuple((i + 1) * n // n_utterances - i * n // n_utterances for n in (n_phones, n_q))


def _labels(phones: list[str], step: int) -> dict[str, str]:
    phn = "".join(f"{i * step} {(i + 1) * step} {phone}\n" for i, phone in enumerate(phones))
    # A word for every four phones between the silences.
    starts = range(1, len(phones) - 4, 4)
    words = [WORDS[i % len(WORDS)] for i in range(len(starts))]
    wrd = "".join(
        f"{start * step} {(start + 4) * step} {word.lower()}\n"
        for start, word in zip(starts, words, strict=True)
    )
    return {"phn": phn, "wrd": wrd, "txt": f"0 {len(phones) * step} {' '.join(words)}.\n"}


def _write(base: Path, case, sphere: bytes, labels: dict[str, str]) -> None:
    base.with_suffix(case(".wav")).write_bytes(sphere)
    for extension, content in labels.items():
        base.with_suffix(case(f".{extension}")).write_text(content)


def _sphere(pcm: bytes) -> bytes:
    header = (
        "NIST_1A\n   1024\ndatabase_id -s5 TIMIT\nchannel_count -i 1\n"
        f"sample_count -i {len(pcm) // 2}\nsample_rate -i 16000\nsample_n_bytes -i 2\n"
        "sample_byte_format -s2 01\nsample_sig_bits -i 16\nend_head\n"
    )
    return header.encode().ljust(1024) + pcm


def _riff(pcm: bytes) -> bytes:
    def u32(value: int) -> bytes:
        return value.to_bytes(4, "little")

    form = b"\x01\x00\x01\x00" + u32(16000) + u32(32000) + b"\x02\x00\x10\x00"
    chunks = b"WAVEfmt " + u32(16) + form + b"data" + u32(len(pcm)) + pcm
    return b"RIFF" + u32(len(chunks)) + chunks
