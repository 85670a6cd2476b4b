"""The tables of the recipes' pages, against what `asr score` says."""

import json
import shutil
import statistics
import sys
from pathlib import Path

import pytest
from running import asr

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import results_table


@pytest.fixture
def scored(monkeypatch, capsys):
    """What `asr score` prints as JSON."""

    def run(*words):
        code, out, err = asr(monkeypatch, capsys, "score", *words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture
def pair(tone_run, tmp_path, scored):
    """A finished run, and one of another seed that heard nothing of some utterances of test."""
    for name in ("a", "b"):
        shutil.copytree(tone_run, tmp_path / name)
    worse = tmp_path / "b"
    heard = worse / "decoded/test.greedy.jsonl"
    lines = [json.loads(line) for line in heard.read_text().splitlines()]
    for line in lines[::3]:
        line["phones"] = []
    heard.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = json.loads((worse / "results.json").read_text())
    results["seed"] = 2
    of = [worse / "manifests/test.jsonl", heard, "--unit", "phone", "--fold", "cmu40"]
    results["sets"]["test"]["greedy"]["PER"] = scored(*of)
    (worse / "results.json").write_text(json.dumps(results))
    return tmp_path / "a", worse


def rows_by_name(*systems):
    cells = [
        dict(zip(results_table.HEAD, row, strict=True)) for row in results_table.table(systems)
    ]
    return {(row["decoder"], row["system"]): row for row in cells}


def test_gains_are_those_of_asr_score(pair, scored):
    a, b = pair
    found = rows_by_name(f"before={a}", f"after={b}")
    files = [run / "decoded/test.greedy.jsonl" for run in pair]
    manifest = a / "manifests/test.jsonl"
    told = scored(manifest, *files, "--compare", "--unit", "phone", "--fold", "cmu40")
    (between,) = told["pairs"]
    over = between["over_speakers"]
    row = found["greedy", "after"]
    assert row["against the row before"] == (
        f"{100 * between['difference']:+.1f} ({100 * over['low']:+.1f} to "
        f"{100 * over['high']:+.1f}), p {between['tests']['wilcoxon']['p']:.2g}"
    )
    assert between["difference"] > 0.1
    one = scored(manifest, files[1], "--unit", "phone", "--fold", "cmu40", "--intervals")
    over = one["over_speakers"]
    assert row["95 % by speaker"] == f"{100 * over['low']:.1f} to {100 * over['high']:.1f}"
    n = one["reference_length"]
    counts = (one["substitutions"], one["deletions"], one["insertions"])
    assert row["S / D / I"] == " / ".join(f"{100 * count / n:.1f}" for count in counts)
    assert found["greedy", "before"]["against the row before"] == ""
    assert row["seeds"] == "2"


def test_seeds_have_a_mean_and_a_deviation(pair):
    results = [json.loads((run / "results.json").read_text()) for run in pair]
    rates = [100 * r["sets"]["test"]["greedy"]["PER"]["error_rate"] for r in results]
    a, b = pair
    row = rows_by_name(f"one={a}", f"both={a},{b}")["greedy", "both"]
    assert row["seeds"] == "1, 2"
    assert row["test"] == f"PER {statistics.mean(rates):.1f} ± {statistics.stdev(rates):.1f}"
    # Half of what the worse one alone loses.
    lost = (rates[1] - rates[0]) / 2
    assert row["against the row before"].startswith(f"{lost:+.1f} (")


def test_rates_alone_where_nothing_was_kept(pair):
    shutil.rmtree(pair[0] / "decoded")
    found = rows_by_name(f"before={pair[0]}", f"after={pair[1]}")
    assert found["greedy", "before"]["95 % by speaker"] == ""
    assert found["greedy", "after"]["against the row before"] == ""
    assert found["greedy", "after"]["95 % by speaker"] != ""


def test_decoded_files_of_another_run_are_refused(pair, monkeypatch):
    a, b = pair
    shutil.copy(b / "decoded/test.greedy.jsonl", a / "decoded/test.greedy.jsonl")
    monkeypatch.setattr(sys, "argv", ["results_table.py", str(a)])
    with pytest.raises(SystemExit, match=r"test\.greedy\.jsonl: PER .* where results\.json says"):
        results_table.main()
