"""A tiny corpus in TIMIT layout whose phones are tones: learnt in seconds, truth known exactly."""

from pathlib import Path

import numpy as np

from asr.audio.read import write_sphere

RATE = 16_000
TONES = {"aa": 400.0, "iy": 900.0, "s": 3000.0, "m": 1700.0}
LEXICON = {"ma": "m aa", "see": "s iy", "seam": "s iy m", "mas": "m aa s", "aim": "aa iy m"}


def tone(phone: str, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(n_samples) / RATE
    noise = 0.003 * rng.standard_normal(n_samples)
    if phone in ("h#", "pau"):
        return noise
    return noise + 0.3 * np.sin(2 * np.pi * TONES[phone] * rng.uniform(0.95, 1.05) * time)


def write_utterance(stem: Path, words: list[str], rng: np.random.Generator) -> None:
    phones, word_lines, pieces, at = [], [], [], 0

    def say(phone: str, n_samples: int) -> None:
        nonlocal at
        pieces.append(tone(phone, n_samples, rng))
        phones.append(f"{at} {at + n_samples} {phone}")
        at += n_samples

    say("h#", int(rng.integers(1600, 3200)))
    for word in words:
        begin = at
        for phone in LEXICON[word].split():
            say(phone, int(rng.integers(1300, 2400)))
        word_lines.append(f"{begin} {at} {word}")
    say("h#", int(rng.integers(1600, 3200)))
    samples = (np.concatenate(pieces) * 32767 * 0.8).astype(np.int16)
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_sphere(stem.with_suffix(".WAV"), samples, RATE)
    stem.with_suffix(".PHN").write_text("\n".join(phones) + "\n")
    stem.with_suffix(".WRD").write_text("\n".join(word_lines) + "\n")
    stem.with_suffix(".TXT").write_text(f"0 {len(samples)} {' '.join(words)}\n")


def build(root: Path, n_train: int = 48, n_dev: int = 6, n_test: int = 6, seed: int = 0) -> Path:
    """Write ROOT/{TRAIN,DEV,TEST}/DR1/<speaker>/<utterance>.*, lexicon.txt and phones.txt."""
    rng = np.random.default_rng(seed)
    for split, count in (("TRAIN", n_train), ("DEV", n_dev), ("TEST", n_test)):
        for number in range(count):
            speaker = f"M{split[:2]}{number % 2}"
            words = rng.choice(list(LEXICON), int(rng.integers(2, 5))).tolist()
            write_utterance(root / split / "DR1" / speaker / f"U{number:03d}", words, rng)
    lexicon = "".join(f"{word}\t{phones}\n" for word, phones in LEXICON.items())
    (root / "lexicon.txt").write_text(lexicon)
    (root / "phones.txt").write_text("\n".join([*TONES, "h#", "pau"]) + "\n")
    return root
