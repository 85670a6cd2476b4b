import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asr.errors import InputError
from asr.score.nist import align_nist
from asr.score.read import match, parse_transcripts, texts

STM = """\
;; CATEGORY "0" "" ""
talk A ann 0.0 2.0 <o,f0> the cat
talk A bob 2.0 4.0 ignore_time_segment_in_scoring
talk A ann 4.0 6.0 sat down
Talk b eve 0.0 1.0
"""
CTM = """\
;; the middle of a word decides
talk a 0.00 0.50 THE 0.9
talk a 1.80 0.39 cat
talk a 1.90 0.21 noise
talk a 3.00 0.50 noise
talk a 3.90 0.30 sat
talk a 7.00 0.50 down
talk B 9.00 0.50 uh
"""


def read(text, format):
    return parse_transcripts(Path(f"x.{format}"), text.encode(), format)


def matched(stm, ctm):
    return match(read(stm, "stm"), read(ctm, "ctm"))


def test_words_go_to_segments_by_their_middle():
    found = matched(STM, CTM)
    assert found.ids == ("ann-000", "ann-001", "eve-000")
    assert texts(found) == (["the cat", "sat down", ""], ["THE cat", "sat down", "uh"])
    assert [reference.speaker for reference, _ in found.pairs] == ["ann", "ann", "eve"]
    assert found.missing == found.unscored == ()


def test_the_middle_on_the_end_belongs_to_the_next_segment():
    stm = "t 1 a 0 2.5 x\nt 1 a 2.5 4 y\n"
    assert texts(matched(stm, "t 1 2.4 0.2 w\n"))[1] == ["", "w"]
    # sclite reads ends in single precision: 3.47 becomes a little more.
    stm = "t 1 a 0 3.47 x\nt 1 a 3.47 4 y\n"
    assert texts(matched(stm, "t 1 3.47 0 w\n"))[1] == ["w", ""]


def test_alternatives_go_where_their_latest_word_goes():
    ctm = (
        "t 1 * * <ALT_BEGIN>\nt 1 0.5 0.2 a\nt 1 0.8 0.8 b\nt 1 * * <ALT>\nt 1 * * <ALT_END>\n"
        "t 1 1.5 0.2 c\n"
    )
    stm = "t 1 a 0 1.0 a\nt 1 a 1 4 c\n"
    assert texts(matched(stm, ctm))[1] == ["", "{ a b / @ } c"]


def test_channels_without_counterpart_are_listed():
    found = matched(STM, "talk a 0 1 the\nother 1 0 1 word\n")
    assert (found.missing, found.unscored) == (("talk b",), ("other 1",))
    assert texts(found)[1] == ["the", "", ""]
    found = matched(STM, "")
    assert found.missing == ("talk a", "talk b")


def test_a_ctm_alone_is_an_utterance_for_each_file():
    references = read("the cat (u1)\nsat (u2)\n", "trn")
    hypotheses = read("u1 1 0 1 the\nu2 1 0 1 sat\nu1 1 1 1 dog\n", "ctm")
    assert texts(match(references, hypotheses))[1] == ["the dog", "sat"]
    assert list(read("u A 0 1 a\nu B 0 1 b\n", "ctm").lines) == ["u A", "u B"]


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        ("t 1 0.5 0.2 a\nt 1 0.4 0.2 b\n", "ctm", "x.ctm:2: starts at 0.4 s, before x.ctm:1 (0.5"),
        ("t 1 0.5 0.2\n", "ctm", "x.ctm:1: expected 'file channel start duration word', found"),
        ("t 1 zero 0.2 a\n", "ctm", "x.ctm:1: expected a time in seconds, found 'zero'"),
        ("t 1 nan 0.2 a\n", "ctm", "x.ctm:1: expected a time in seconds, found 'nan'"),
        ("t 1 0 -1 a\n", "ctm", "x.ctm:1: expected a time in seconds, found '-1'"),
        ("t 1 * * <ALT>\n", "ctm", "x.ctm:1: '<ALT>' out of place"),
        ("t 1 * * <ALT_BEGIN>\nt 1 0 1 a\n", "ctm", "x.ctm:2: the file ends inside alternatives"),
        ("t 1 * * <ALT_BEGIN>\nt 2 0 1 a\n", "ctm", "x.ctm:2: another channel inside alternatives"),
        ("t 1 a 0\n", "stm", "x.stm:1: expected 'file channel speaker start end words', found"),
        ("t 1 a 2 1 x\n", "stm", "x.stm:1: the segment ends (1) before it starts"),
        ("t 1 a 2 3 x\nt 1 a 1 3 y\n", "stm", "x.stm:2: starts at 1 s, before x.stm:1 (2 s)"),
    ],
)
def test_malformed_files_name_file_and_line(text, format, message):
    with pytest.raises(InputError, match="^" + re.escape(message)):
        read(text, format)


def test_sets_that_cannot_be_matched():
    with pytest.raises(InputError, match=r"x\.trn: is trn; segments of an stm .* need .* a ctm"):
        match(read(STM, "stm"), read("a (u1)\n", "trn"))
    with pytest.raises(InputError, match=r"no file and channel in common .*'talk a' and 'other 1'"):
        matched(STM, "other 1 0 1 word\n")
    with pytest.raises(InputError, match="every segment is ignored"):
        matched("t 1 a 0 1 IGNORE_TIME_SEGMENT_IN_SCORING\n", "t 1 0 1 a\n")
    with pytest.raises(InputError, match="channel 'talk a' in upper and lower case"):
        matched(STM, "talk a 0 1 x\ntalk A 0 1 x\n")


@pytest.mark.parametrize(
    ("text", "format"),
    [(STM, "stm"), (CTM, "ctm"), ("t 1 7 0.0 1.5 2\n", "stm"), ("t 1 0.5 0.2 one\n", "ctm")],
)
def test_times_tell_the_format(text, format):
    assert parse_transcripts(Path("file"), text.encode()).format == format


def drawn_set(seed):
    """An stm and a ctm of two recordings with two channels; segments leave gaps and overlap."""
    rng = random.Random(seed)
    stm, ctm = [";; comment"], []
    for file in ("f1", "f2"):
        for channel in "AB":
            start = 0.0
            words = []
            for _ in range(130):
                end = round(start + rng.uniform(0.2, 4), 2)
                tokens = []
                for _ in range(rng.randrange(8)):
                    word = rng.choice("abcdeF")
                    dice = rng.random()
                    if dice < 0.1:
                        tokens.append(f"{{ {word} {rng.choice('ab')} / {rng.choice(['@', 'c'])} }}")
                    elif dice < 0.2:
                        tokens.append(f"({word})")
                    else:
                        tokens.append(word)
                    if rng.random() < 0.85:
                        at = round(rng.uniform(start, end), 2)
                        words.append((at, word if dice < 0.8 else rng.choice("abcde")))
                text = " ".join(tokens)
                if rng.random() < 0.05:
                    text = "IGNORE_TIME_SEGMENT_IN_SCORING"
                label = "<o,f0> " if rng.random() < 0.5 else ""
                speaker = f"{file}-{rng.choice('xy')}"
                stm.append(f"{file} {channel} {speaker} {start} {end} {label}{text}")
                start = max(0, round(end + rng.choice((0, 0, 0.5, -0.1)), 2))
            for at, word in sorted(words):
                head = f"{file} {channel}"
                if rng.random() < 0.1:
                    ctm += [
                        f"{head} * * <ALT_BEGIN>",
                        f"{head} {at} 0.1 {word}",
                        f"{head} * * <ALT>",
                    ]
                    ctm += [f"{head} {at} 0.05 {rng.choice('ab')}"] * rng.randrange(2)
                    ctm.append(f"{head} * * <ALT_END>")
                else:
                    ctm.append(f"{head} {at} {round(rng.uniform(0.02, 0.4), 2)} {word} 0.5")
    return "\n".join(stm) + "\n", "\n".join(ctm) + "\n"


@pytest.mark.skipif(not shutil.which("sctk"), reason="sctk is not installed")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_columns_equal_sclite(seed, tmp_path):
    stm, ctm = drawn_set(seed)
    (tmp_path / "r.stm").write_text(stm)
    (tmp_path / "h.ctm").write_text(ctm)
    files = ["-r", "r.stm", "stm", "-h", "h.ctm", "ctm"]
    subprocess.run(
        ["sctk", "sclite", *files, "-D", "-e", "utf-8", "-o", "sgml"],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    sgml = (tmp_path / "h.ctm.sgml").read_text(encoding="utf-8")
    theirs = {}
    for utterance, row in re.findall(r'<PATH id="\((\S+)\)".*\n(.*)\n?</PATH>', sgml):
        cells = re.findall(r'([CSDI]),("[^"]*")?,("[^"]*")?', row)
        theirs[utterance] = [(e, r.strip('"'), h.strip('"')) for e, r, h in cells]
    found = matched(stm, ctm)
    ours = {
        utterance: [(c.error or "C", c.reference or "", c.hypothesis or "") for c in a.columns]
        for utterance, a in zip(found.ids, align_nist(*texts(found)), strict=True)
    }
    assert len(theirs) > 450
    assert ours == theirs
