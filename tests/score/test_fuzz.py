"""The readers of scores, and all behind them, on spoilt files."""

from pathlib import Path

import pytest
from fuzzing import mutated, peak_bytes, survives
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.score.alignment import align_texts
from asr.score.nist import align_nist
from asr.score.read import FORMATS, match, parse_transcripts, texts

STM = b"""\
;; comment
talk A ann 0.00 2.50 <o,f0> the { cat / dog } (uh) sat
talk A bob 2.50 4.00 IGNORE_TIME_SEGMENT_IN_SCORING
talk A ann 4.00 9.10 it's so;tag {a/@} nice
talk B eve 0.20 3.00 m\xc3\xbcde
"""
CTM = b"""\
talk A 0.10 0.30 the 0.9
talk A * * <ALT_BEGIN>
talk A 0.50 0.30 cat 0.8
talk A * * <ALT>
talk A * * <ALT_END>
talk A 1.10 0.30 sat
talk A 5.00 0.25 nice
talk B 1.00 0.25 M\xc3\x9cDE 1.0
"""
SEEDS = {
    "txt": [b"the cat\n\nm\xc3\xbcde { a / @ }\n"],
    "trn": [b";; comment\nthe {cat / dog} (uh) sat (ann-1)\n(bob-2)\nm\xc3\xbcde (eve_3)\n"],
    "kaldi": [b"u1 the cat\nu2\nu3\tm\xc3\xbcde\n"],
    "csv": [
        b'id,text\nu1,"the cat, ""it"" sat"\nu2,\n',
        b"path;sentence;hyp;x\r\na/u3.wav;m\xc3\xbcde;mude;\r\n",
    ],
    "tsv": [b"a/u1.wav\tthe cat\nu2.flac\t\nb c/u3.wav\tm\xc3\xbcde\n"],
    "jsonl": [
        b'{"id": "u1", "text": "the cat", "speaker": "ann"}\n{"id": "u2", "text": "m\\u00fcde"}\n',
        b'[{"audio_filepath": "/x/u3.wav", "pred_text": "a", "phones": [["b", 0, 1], "iy"]}]',
        b'{"id": "u4", "labels": [{"label": "ix", "start_s": 0.5}], "nbest": []}\n',
    ],
    "stm": [STM],
    "ctm": [CTM],
}
REFERENCES = {name: parse_transcripts(Path("r"), seeds[0], name) for name, seeds in SEEDS.items()}


def read_and_score(data: bytes, format: str) -> None:
    """Read, as hypotheses and as references, and align what can be aligned."""
    path = Path("spoilt")
    read = parse_transcripts(path, data, format)
    parse_transcripts(path, data)
    reference = REFERENCES["stm" if format == "ctm" else format]
    hypothesis = REFERENCES["ctm"] if format == "stm" else read
    matched = match(read if format == "stm" else reference, hypothesis)
    said, heard = texts(matched)
    assert len(align_texts(said, heard)) == len(align_nist(said, heard)) == len(matched.ids)
    align_texts(said, heard, characters=True)


def test_seeds_are_good():
    assert set(SEEDS) == set(FORMATS)
    for format, seeds in SEEDS.items():
        for seed in seeds:
            parse_transcripts(Path("seed"), seed, format)


@pytest.mark.parametrize("format", SEEDS)
def test_spoilt_files_are_read_or_refused(format):
    every = [seed for seeds in SEEDS.values() for seed in seeds]
    # Compiling takes longer than a file may.
    read_and_score(SEEDS[format][0], format)
    for data in mutated(SEEDS[format] * 3 + every, n=300, seed=1):
        survives(lambda data=data: read_and_score(data, format))


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(FORMATS)))
def test_any_bytes_are_read_or_refused(data, format):
    survives(lambda: read_and_score(data, format))


@pytest.mark.slow
@pytest.mark.parametrize("format", SEEDS)
def test_a_hundred_thousand_spoilt_files(format):
    every = [seed for seeds in SEEDS.values() for seed in seeds]
    # Compiling takes longer than a file may.
    read_and_score(SEEDS[format][0], format)
    survives(lambda: read_and_score(SEEDS[format][0], format))
    before = peak_bytes()
    n_read = 0
    for data in mutated(SEEDS[format] * 3 + every, n=100_000 // len(SEEDS) + 1, seed=2):
        n_read += survives(lambda data=data: read_and_score(data, format))
    assert n_read > 100
    assert peak_bytes() - before < 200 << 20
