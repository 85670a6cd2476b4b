"""A small corpus in TIMIT's layout, spoken by espeak-ng: the data of `make demo`.

OUT/{TRAIN,DEV,TEST}/DR1/<F|M><voice>/SX<n>.{WAV,PHN,WRD,TXT}, OUT/lexicon.txt, OUT/phones.txt.
The speakers are espeak-ng's voice variants of American English, each in one split only; the
sentences come from the small grammar below, drawn independently for each split, or from the lines
of a text, none of them twice.

Where the times come from: espeak-ng marks the sample at which it begins to render each phoneme,
and a phone lasts from its mark to the next one; after silence the sound starts within a
millisecond of the mark. The mark of a voiceless stop is its burst (the closure before it counts to
the phone before), that of a voiced one its voiced closure. A vowel after a nasal or a liquid is
marked where the transition into it ends, an l after a vowel where the transition into it ends, so
that little or nothing of the l is left: a phone shorter than `SHORTEST_PHONE_S` is begun that much
earlier. One mark that stands for two phones (the r-coloured vowel of "market", the syllabic l of
"apple") is cut in halves. Marks lie on espeak's 22050 Hz grid and are rounded to the nearest
sample at 16 kHz. Words begin and end with their phones.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from asr.audio.read import sphere_bytes
from asr.errors import InputError
from asr.system.files import write_folder_aside
from asr.system.text import plain_words, read_text

ESPEAK_RATE = 22050
SAMPLE_RATE = 16000
#: Silence before and after the speech, drawn uniformly.
EDGE_S = (0.1, 0.3)
#: White noise over the whole file, in 16-bit steps: about 40 dB below the speech. Digital silence
#: would dominate the variance of log-mel features.
NOISE_RMS = 20.0
WORDS_PER_MINUTE = (145, 190)
SHORTEST_PHONE_S = 0.03

Voices = dict[str, tuple[str, ...]]
#: Voice variants that sound like people: no whisper, croak, strong echo or Klatt synthesis, and
#: none that repeats the formants of a voice in another split.
VOICES: dict[str, Voices] = {
    "TRAIN": {
        "F": ("f1", "f2", "f4", "Annie", "linda", "shelby"),
        "M": ("m1", "m2", "m4", "m7", "Alex", "paul"),
    },
    "DEV": {"F": ("f5", "steph"), "M": ("m3", "pedro")},
    "TEST": {"F": ("f3", "Andrea"), "M": ("m6", "robert")},
}

#: Variants that TRAIN does without even where it gets all that espeak-ng has.
NO_VOICES = frozenset("whisper whisperf croak Demonic UniRobot".split())
#: Words of a line of text that is a sentence.
LINE_WORDS = (3, 14)

#: Upper-case words are rules; each of the alternatives between bars is equally likely.
GRAMMAR = {
    "S": (
        "WHO DID WHAT | WHO DID WHAT PLACE | WHO WENT PLACE | WHO HOW WENT PLACE | "
        "WHEN, WHO WENT PLACE | WHEN, WHO DID WHAT | WHY did WHO DO WHAT | MODAL WHO DO WHAT WHEN"
    ),
    "WHO": "WHOSE PERSON | WHOSE KIND PERSON | this PERSON | we | they | she | he | you",
    "WHAT": "WHOSE THINGS | NUMBER THINGS | NUMBER KIND THINGS",
    "PLACE": "PREPOSITION the SITE | PREPOSITION this KIND SITE",
    "WHOSE": "the | my | your | their | our",
    "KIND": (
        "old | young | happy | quiet | yellow | purple | huge | gentle | noisy | little | good | "
        "brave"
    ),
    "PERSON": (
        "captain | teacher | boy | girl | farmer | doctor | mother | father | brother | child | "
        "judge | king | queen | lawyer | bird | dog | fox"
    ),
    "NUMBER": "two | three | four | five | six | seven | eight | nine | ten | twelve | many",
    "THINGS": (
        "apples | books | chairs | watches | shoes | boats | letters | cookies | oranges | toys | "
        "bags | pictures | treasures | boxes | coins | sandwiches"
    ),
    "DID": (
        "carried | found | bought | watched | pushed | chose | enjoyed | measured | touched | "
        "painted | forgot | took | showed | threw"
    ),
    "DO": "carry | find | bring | choose | push | pull | measure | watch | share | leave",
    "WENT": "walked | jumped | waited | arrived | played | sang | hid | laughed | worked | ran",
    "PREPOSITION": "near | behind | by | at",
    "SITE": (
        "market | garden | house | kitchen | river | beach | school | village | garage | church | "
        "window | ocean | station"
    ),
    "WHEN": "today | yesterday | again | tonight | now | outside",
    "HOW": "slowly | quickly | often | usually",
    "WHY": "why | where | how | when",
    "MODAL": "could | should | will | would",
}
LONGEST_SENTENCE = 8

#: espeak-ng's phoneme mnemonics of American English -> CMU phones. A flap (t#) is the t it stands
#: for. Glides that link words (; and r-) and glottal stops have no phone: the one before is longer.
PHONES: dict[str, tuple[str, ...]] = {
    mnemonic: tuple(phones.split())
    for mnemonic, phones in {
        **{p: p for p in "bdfgklmnprstvwz"},
        **{"D": "dh", "T": "th", "S": "sh", "Z": "zh", "tS": "ch", "dZ": "jh"},
        **{"N": "ng", "h": "hh", "j": "y", "t#": "t", "r-": "", ";": ""},
        **{"t2": "t", "n-": "ah n", "?": "", "@-": "ah", "i@": "iy ah"},
        **{"a": "ae", "aa": "ae", "E": "eh", "I": "ih", "I#": "ih", "I2": "ih", "U": "uh"},
        **{"i": "iy", "i:": "iy", "u:": "uw", "A:": "aa", "0": "aa", "O:": "ao", "O2": "ao"},
        **{"@": "ah", "@2": "ah", "a#": "ah", "V": "ah", "3": "er", "3:": "er"},
        **{"aI": "ay", "aU": "aw", "eI": "ey", "OI": "oy", "oU": "ow"},
        **{"A@": "aa r", "O@": "ao r", "o@": "ao r", "e@": "eh r", "i@3": "ih r", "U@": "uh r"},
        **{"aI@": "ay ah", "aI3": "ay er", "aU@": "aw er", "@L": "ah l"},
    }.items()
}
_STRESS_MARKS = "',%="
_PAUSES = {"_", "_:"}


class Job(NamedTuple):
    """One utterance to speak: ``path`` is relative to the corpus, without extension."""

    path: str
    voice: str
    sentence: str
    words_per_minute: int


class Mark(NamedTuple):
    """Where espeak-ng begins a phoneme: sample at 22050 Hz, mnemonic, its word in the sentence."""

    sample: int
    mnemonic: str
    word: int


class Span(NamedTuple):
    """A phone or word from sample ``start`` to sample ``end``, exclusive, at 16 kHz."""

    start: int
    end: int
    label: str


class Segments(NamedTuple):
    """What was said when: phones are contiguous, ``pronunciations[i]`` belongs to ``words[i]``."""

    phones: list[Span]
    words: list[Span]
    pronunciations: list[tuple[str, ...]]


def synthesize(
    out: Path,
    seed: int = 0,
    n_train: int = 600,
    n_dev: int = 60,
    n_test: int = 60,
    text: Path | None = None,
    every_voice: bool = False,
) -> int:
    """Write the corpus to ``out``: ``n_*`` utterances, shared equally by the voices of the split.

    The same arguments give the same bytes. lexicon.txt (word, tab, phones) holds every
    pronunciation that occurs in TRAIN, and one for each word of the grammar that does not. text: a
    file whose lines are sentences, instead of the grammar's. every_voice: TRAIN gets all voice
    variants that espeak-ng has, but for `NO_VOICES` and those of the other splits.

    Returns:
        How many lines of ``text`` were left out, as espeak-ng does not speak them word by word.

    Raises:
        InputError: espeakng-loader is missing, ``out`` is not empty or cannot be written, ``text``
            cannot be read or is too short, or espeak-ng speaks a phoneme of the grammar that
            `PHONES` does not know. Nothing is left behind.
    """
    out = Path(out)
    sizes = {"TRAIN": n_train, "DEV": n_dev, "TEST": n_test}
    if min(sizes.values()) < 1:
        raise InputError(f"each split needs at least one utterance; asked for {sizes}")
    if find_spec("espeakng_loader") is None:
        raise InputError("espeakng-loader is not installed: pip install 'carousel-asr[demo]'")
    sentences = None if text is None else sentences_of(text, sum(sizes.values()), seed)
    voices = {**VOICES, "TRAIN": every_variant()} if every_voice else VOICES
    with write_folder_aside(out) as aside:
        return _write_corpus(aside, plan(sizes, seed, voices, sentences), seed, text is None)


def plan(
    sizes: dict[str, int],
    seed: int,
    voices: Mapping[str, Voices] = VOICES,
    sentences: Iterator[str] | None = None,
) -> list[Job]:
    """Choose voice, speaking rate and sentence of every utterance, split by split."""
    jobs = []
    for number, (split, size) in enumerate(sizes.items()):
        rng = np.random.default_rng([seed, number])
        speakers = [(sex, voice) for sex, named in voices[split].items() for voice in named]
        for i in range(size):
            sex, voice = speakers[i % len(speakers)]
            path = f"{split}/DR1/{sex}{voice.upper()}/SX{i + 1}"
            sentence = draw_sentence(rng) if sentences is None else next(sentences)
            jobs.append(Job(path, voice, sentence, int(rng.integers(*WORDS_PER_MINUTE))))
    return jobs


def every_variant() -> Voices:
    """All voice variants that TRAIN may have, by sex; those of unknown sex are taken as male."""
    import espeakng_loader

    women = VOICES["TRAIN"]["F"]
    taken = {v for split in ("DEV", "TEST") for named in VOICES[split].values() for v in named}
    found: dict[str, list[str]] = {"F": [], "M": []}
    for path in sorted((Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir()):
        if path.name not in taken | NO_VOICES and path.name.isalnum():
            is_female = re.search(r"^gender\s+female", path.read_text("utf-8"), re.MULTILINE)
            found["F" if is_female or path.name in women else "M"].append(path.name)
    return {sex: tuple(named) for sex, named in found.items()}


def sentences_of(text: Path, n: int, seed: int) -> Iterator[str]:
    """Draw ``n`` sentences from the lines of a file, as `plain_words`, none of them twice.

    Raises:
        InputError: the file cannot be read, or has too few lines of `LINE_WORDS` words.
    """
    least, most = LINE_WORDS
    lines = dict.fromkeys(plain_words(line) for line in read_text(text).splitlines())
    fit = [line for line in lines if least <= len(line.split()) <= most]
    if len(fit) < n:
        raise InputError(
            f"{text}: expected at least {n} different lines of {least} to {most} words, found "
            f"{len(fit)}"
        )
    return (fit[i] for i in np.random.default_rng(seed).permutation(len(fit))[:n])


def draw_sentence(rng: np.random.Generator) -> str:
    """Expand the grammar at random into at most `LONGEST_SENTENCE` words; commas mark pauses."""

    def expand(symbol: str) -> str:
        rule = symbol.rstrip(",")
        if rule not in GRAMMAR:
            return symbol
        alternatives = GRAMMAR[rule].split(" | ")
        chosen = alternatives[rng.integers(len(alternatives))]
        return " ".join(expand(part) for part in chosen.split()) + symbol[len(rule) :]

    while len((sentence := expand("S")).split()) > LONGEST_SENTENCE:
        pass
    return sentence


def vocabulary() -> list[str]:
    """Return every word that the grammar can say."""
    symbols = {symbol for rule in GRAMMAR.values() for symbol in words_of(rule.replace("|", ""))}
    return sorted(symbols - GRAMMAR.keys())


def words_of(sentence: str) -> list[str]:
    """Split a sentence into words, without the commas."""
    return sentence.replace(",", "").split()


def to_16_khz(audio: np.ndarray) -> np.ndarray:
    """Resample espeak's audio (N,) to SAMPLE_RATE by cutting its spectrum off at 8 kHz.

    The spectrum takes the audio as periodic, which its silent ends allow.
    """
    up, down = 320, 441  # 16000 : 22050
    blocks = -(-len(audio) // down)
    spectrum = np.fft.rfft(audio, blocks * down)[: blocks * up // 2 + 1]
    return np.fft.irfft(spectrum, blocks * up) * (up / down)


def segment(marks: list[Mark], sentence: str, lead: int, n_samples: int) -> Segments:
    """Turn espeak-ng's marks into phones and words.

    ``lead`` is the silence put before espeak's audio and ``n_samples`` the length of the whole,
    both in samples at 16 kHz. The last mark must be a pause. Silence at the ends becomes ``h#``,
    silence inside ``pau``.

    Raises:
        InputError: a mnemonic that `PHONES` does not know, or other words than the sentence's.
    """
    labels, starts, owners = ["h#"], [0], [-1]
    edges = [lead + round(mark.sample * SAMPLE_RATE / ESPEAK_RATE) for mark in marks] + [n_samples]
    for i, mark in enumerate(marks):
        if mark.mnemonic in _PAUSES:
            symbols: tuple[str, ...] = () if labels[-1] in ("h#", "pau") else ("pau",)
        elif mark.mnemonic in PHONES:
            symbols = PHONES[mark.mnemonic]
        else:
            raise InputError(
                f"sentence {sentence!r}: espeak-ng's phoneme {mark.mnemonic!r} has no CMU phone; "
                "add it to PHONES in asr/corpora/synthetic.py"
            )
        if symbols == ("r",) and labels[-1] == "r" and owners[-1] == mark.word:
            symbols = ()  # "four apples": the vowel's own r, rendered before the next word's vowel
        for k, symbol in enumerate(symbols):
            labels.append(symbol)
            starts.append(edges[i] + k * (edges[i + 1] - edges[i]) // len(symbols))
            owners.append(-1 if symbol == "pau" else mark.word)
    labels[-1] = "h#"
    ends = [*starts[1:], n_samples]
    for i in range(len(labels) - 2, 0, -1):
        starts[i] = min(starts[i], ends[i] - round(SHORTEST_PHONE_S * SAMPLE_RATE))
        ends[i - 1] = starts[i]

    words, pronunciations = [], []
    expected = words_of(sentence)
    if set(owners) - {-1} != set(range(len(expected))):
        raise InputError(f"sentence {sentence!r}: espeak-ng does not speak it word by word")
    for number, word in enumerate(expected):
        own = [i for i, owner in enumerate(owners) if owner == number]
        words.append(Span(starts[own[0]], ends[own[-1]], word))
        pronunciations.append(tuple(labels[i] for i in own))
    phones = [Span(*each) for each in zip(starts, ends, labels, strict=True)]
    return Segments(phones, words, pronunciations)


def _write_corpus(out: Path, jobs: list[Job], seed: int, of_grammar: bool) -> int:
    trained = {
        word for job in jobs if job.path.startswith("TRAIN") for word in words_of(job.sentence)
    }
    # Words that TRAIN lacks are spoken alone, for the lexicon only.
    alone = [
        Job("", jobs[0].voice, word, WORDS_PER_MINUTE[0])
        for word in vocabulary()
        if of_grammar and word not in trained
    ]
    jobs = jobs + alone
    lexicon, n_skipped = set(), 0
    spoken = track(_speak_all(jobs), "speaking", len(jobs), console=Console(stderr=True))
    for i, (job, (audio, marks)) in enumerate(zip(jobs, spoken, strict=True)):
        rng = np.random.default_rng([seed, len(VOICES), i])
        lead, tail = (round(s * SAMPLE_RATE) for s in rng.uniform(*EDGE_S, size=2))
        samples = np.pad(to_16_khz(audio), (lead, tail))
        samples += NOISE_RMS * rng.standard_normal(len(samples))
        try:
            said = segment(marks, job.sentence, lead, len(samples))
        except InputError:
            if of_grammar:
                raise
            n_skipped += 1
            continue
        if job.path:
            _write_utterance(out / job.path, samples, said)
        if not job.path or job.path.startswith("TRAIN"):
            for word, phones in zip(said.words, said.pronunciations, strict=True):
                lexicon.add(f"{word.label}\t{' '.join(phones)}\n")
    inventory = sorted({phone for phones in PHONES.values() for phone in phones})
    (out / "lexicon.txt").write_text("".join(sorted(lexicon)), encoding="utf-8")
    (out / "phones.txt").write_text("\n".join([*inventory, "h#", "pau", ""]), encoding="utf-8")
    return n_skipped


def _write_utterance(stem: Path, samples: np.ndarray, said: Segments) -> None:
    pcm = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    stem.parent.mkdir(parents=True, exist_ok=True)
    # Not write_sphere: the whole corpus is written aside, and 700 syncs may take half a minute.
    stem.with_suffix(".WAV").write_bytes(sphere_bytes(pcm, SAMPLE_RATE))
    for suffix, spans in {".PHN": said.phones, ".WRD": said.words}.items():
        lines = "".join(f"{start} {end} {label}\n" for start, end, label in spans)
        stem.with_suffix(suffix).write_text(lines, encoding="utf-8")
    sentence = " ".join(word.label for word in said.words)
    stem.with_suffix(".TXT").write_text(f"0 {len(pcm)} {sentence}\n", encoding="utf-8")


def _speak_all(jobs: list[Job]) -> Iterator[tuple[np.ndarray, list[Mark]]]:
    """Speak in one fresh process.

    espeak-ng carries state (flutter, echo, random numbers) from one utterance to the next, so that
    only a process that speaks all of them in order gives the same samples again; and it is C code
    whose crash should not be ours.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, ignore_ctrl_c) as pool:
        try:
            yield from pool.map(_speak, jobs)
        except BrokenProcessPool as error:
            raise InputError(
                "espeak-ng's process died; if this is called from a script of your own, guard its "
                "main part with: if __name__ == '__main__'"
            ) from error


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng's speak_lib.h, API revision 12 (1.50 and later)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
# Names and values as in speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS, _INITIALIZE_DONT_EXIT = 1, 0x8000
_EVENT_LIST_TERMINATED, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_RATE = 1
_CHARS_UTF8 = 1


@cache
def _espeak() -> ctypes.CDLL:
    """Load and initialise espeak-ng: once a process, since its state is global."""
    import espeakng_loader

    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise InputError(f"espeak-ng's library cannot be loaded: {error}") from error
    # espeak-ng cuts paths at 160 bytes, so that it must find its data from the working directory,
    # which this process has to itself.
    data = Path(espeakng_loader.get_data_path())
    os.chdir(data.parent)
    options = _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_DONT_EXIT
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data.name.encode(), options)
    if rate != ESPEAK_RATE:
        raise InputError(
            f"espeak-ng does not start with the data in {data}: expected {ESPEAK_RATE} Hz, found "
            f"{rate}; reinstall espeakng-loader"
        )
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    return library


def _speak(job: Job) -> tuple[np.ndarray, list[Mark]]:
    """Speak one sentence: (N,) int16 at 22050 Hz and the phonemes' marks, a pause last."""
    chunks: list[np.ndarray] = []
    marks: list[Mark] = []
    word = -1

    def receive(wave: Any, n_samples: int, events: Any) -> int:
        nonlocal word
        if wave and n_samples:
            chunks.append(np.ctypeslib.as_array(wave, (n_samples,)).copy())
        for event in events:
            if event.type == _EVENT_LIST_TERMINATED:
                break
            if event.type == _EVENT_WORD:
                word += 1
            elif event.type == _EVENT_PHONEME:
                # The eight bytes of the union; ctypes cuts them at the first zero.
                mnemonic = event.id.string.decode("utf-8").lstrip(_STRESS_MARKS)
                marks.append(Mark(event.sample, mnemonic, word))
        return 0

    espeak = _espeak()
    callback = _CALLBACK(receive)
    espeak.espeak_SetSynthCallback(callback)
    espeak.espeak_SetParameter(_RATE, job.words_per_minute, 0)
    if espeak.espeak_SetVoiceByName(f"en-us+{job.voice}".encode()):
        raise InputError(f"espeak-ng has no voice variant {job.voice!r}")
    text = job.sentence.encode()
    if espeak.espeak_Synth(text, len(text) + 1, 0, 1, 0, _CHARS_UTF8, None, None):
        raise InputError(f"espeak-ng cannot speak {job.sentence!r}")
    audio = np.concatenate(chunks)
    return audio, [*marks, Mark(len(audio), "_", -1)]
