import json
import math
import random
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.score.alignment import align
from asr.score.nist import align_nist
from asr.score.show import comparison_json, comparison_text
from asr.score.significance import (
    bootstrap,
    compare,
    intervals,
    mapsswe,
    mcnemar_test,
    segment_differences,
    sign_test,
    wilcoxon_test,
)


def aligned(*pairs):
    return align([(r.split(), h.split()) for r, h in pairs])


def noisy(rng, words, rate):
    said = []
    for word in words:
        dice = rng.random()
        if dice >= rate / 3:
            said.append(rng.choice("abcdefgh") if dice < 2 * rate / 3 else word)
        if 2 * rate / 3 <= dice < rate:
            said.append(rng.choice("abcdefgh"))
    return " ".join(said)


def two_systems(seed, n_speakers=8, n_utterances=15):
    """(speaker, reference, hypothesis of A, hypothesis of B); B is the worse one."""
    rng = random.Random(seed)
    rows = []
    for i in range(n_speakers * n_utterances):
        words = rng.choices("abcdefgh", k=rng.randrange(1, 15))
        rows.append((f"s{i % n_speakers}", " ".join(words), noisy(rng, words, 0.2)))
        rows[-1] += (noisy(rng, words, 0.3),)
    return rows


def test_interval_of_equal_utterances_is_a_point():
    interval = bootstrap(aligned(*[("a b c d", "a b c x")] * 5), np.arange(5))
    assert (interval.low, interval.high, interval.groups) == (0.25, 0.25, 5)


def test_interval_covers_the_binomial_one():
    rng = random.Random(0)
    pairs = [("a", "a" if rng.random() < 0.8 else "b") for _ in range(400)]
    interval = bootstrap(aligned(*pairs), np.arange(400))
    rate = sum(r != h for r, h in pairs) / 400
    half = 1.96 * math.sqrt(rate * (1 - rate) / 400)
    assert interval.low == pytest.approx(rate - half, abs=0.005)
    assert interval.high == pytest.approx(rate + half, abs=0.005)


def test_interval_of_a_difference_draws_the_same_utterances():
    a, b = aligned(("a b", "a b"), ("c", "x")), aligned(("a b", "a x"), ("c", "c"))
    same = bootstrap(a, np.arange(2), a)
    assert (same.low, same.high) == (0, 0)
    other = bootstrap(a, np.arange(2), b)
    assert (other.low, other.high) == (-1, 0.5)


def test_intervals_over_speakers_need_two_of_them():
    alignments = aligned(("a", "a"), ("b", "c"))
    assert intervals(alignments, ["s", "s"])[1] is None
    assert intervals(alignments, ["s", "t"])[1].groups == 2


def test_no_reference_words_leave_the_interval_undefined():
    assert math.isnan(bootstrap(aligned(("", "a")), np.arange(1)).low)


@pytest.mark.parametrize(
    ("a", "b", "differences"),
    [
        # A errs in the first word, B in the third: one segment, as only one right word is between.
        (("a b c d e", "x b c d e"), ("a b c d e", "a b x d e"), [0]),
        # Here two words between are right in both: two segments.
        (("a b c d e", "x b c d e"), ("a b c d e", "a b c x e"), [-1, 1]),
        # An insertion at the end, and none at all.
        (("a b", "a b"), ("a b", "a b x"), [1]),
        (("a b", "a b"), ("a b", "a b"), []),
        (("", ""), ("", "x"), [1]),
    ],
)
def test_segments_end_where_both_have_two_words_right(a, b, differences):
    assert segment_differences(aligned(a), aligned(b)).tolist() == differences
    both = segment_differences(aligned(a, ("c", "c"), b), aligned(b, ("c", "c"), a))
    assert both.tolist() == [*differences, *(-d for d in differences)]


def test_sign_test():
    assert sign_test([1] * 11 + [-1]).p == pytest.approx(2 * 13 / 2**12)
    assert sign_test([0, 0]).p == 1
    assert sign_test([1, -1, 0]) == sign_test([-2, 3])


def test_mcnemar_counts_what_one_alone_has_wrong():
    a = aligned(("a", "a"), ("b", "x"), ("c", "c"), ("d", "d"))
    b = aligned(("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"))
    test = mcnemar_test(a, b)
    assert (test.statistic, test.samples, test.p) == (3, 3, 0.25)


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=3, max_size=30).filter(any))
def test_wilcoxon_equals_scipy(differences):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.wilcoxon(differences, method="approx", correction=False, zero_method="wilcox")
    assert wilcoxon_test(differences).p == pytest.approx(expected.pvalue)


def test_wilcoxon_without_differences():
    assert wilcoxon_test([0.0, math.nan]).p == 1


def test_mapsswe_cannot_say_where_all_segments_differ_alike():
    right, wrong = ("a b c d", "a b c d"), ("a b c d", "a x c d")
    for n in (1, 20):
        test = mapsswe(aligned(*[right] * n), aligned(*[wrong] * n))
        assert math.isnan(test.p)
        assert test.samples == n
    comparison = compare(aligned(*[right] * 20), aligned(*[wrong] * 20), [""] * 20)
    assert "MAPSSWE   cannot say  (the same difference in all 20 segments)" in (
        comparison_text(comparison)
    )
    assert comparison_json(comparison)["tests"]["mapsswe"]["p"] is None
    assert comparison.mcnemar.p < 1e-5
    for of in (right, wrong):
        assert mapsswe(aligned(*[of] * 3), aligned(*[of] * 3)).p == 1


def test_comparison_finds_the_worse_system():
    rows = two_systems(1)
    a = aligned(*[(r, h) for _, r, h, _ in rows])
    b = aligned(*[(r, h) for _, r, _, h in rows])
    comparison = compare(a, b, [row[0] for row in rows])
    assert 0.05 < comparison.difference < 0.15
    assert 0 < comparison.over_utterances.low < comparison.difference
    assert comparison.mapsswe.p < 0.01
    assert comparison.mapsswe.statistic > 0
    assert comparison.over_speakers.groups == 8
    assert comparison_text(comparison).startswith("B less A: +")
    assert json.loads(json.dumps(comparison_json(comparison)))["tests"]["sign"]["samples"] == 8
    alone = compare(a, b, [""] * len(rows))
    assert (alone.over_speakers, alone.sign, alone.wilcoxon) == (None, None, None)


@pytest.mark.skipif(not shutil.which("sctk"), reason="sctk is not installed")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mapsswe_equals_sc_stats(seed, tmp_path):
    rows = two_systems(seed)
    ids = [f"({row[0]}-{i})" for i, row in enumerate(rows)]
    for name, column in (("r", 1), ("a", 2), ("b", 3)):
        lines = [f"{row[column]} {i}\n" for row, i in zip(rows, ids, strict=True)]
        (tmp_path / f"{name}.trn").write_text("".join(lines))
    sgml = b""
    for name in "ab":
        files = ["-r", "r.trn", "trn", "-h", f"{name}.trn", "trn", "-i", "spu_id"]
        subprocess.run(
            ["sctk", "sclite", *files, "-o", "sgml"], cwd=tmp_path, capture_output=True, check=True
        )
        sgml += (tmp_path / f"{name}.trn.sgml").read_bytes()
    subprocess.run(
        ["sctk", "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "all", "-O", "."],
        cwd=tmp_path,
        input=sgml,
        capture_output=True,
        check=True,
    )
    report = (tmp_path / "all.stats.mapsswe").read_text(errors="replace")
    segments, z = re.search(r"\(# segs: (\d+)\).*\(Z Stat: *(-?[\d.]+)\)", report).groups()
    test = mapsswe(
        align_nist([row[1] for row in rows], [row[2] for row in rows]),
        align_nist([row[1] for row in rows], [row[3] for row in rows]),
    )
    assert test.samples == int(segments)
    # sc_stats takes A less B.
    assert -test.statistic == pytest.approx(float(z), abs=0.0005)
