"""Runs side by side, with planted figures."""

import json
import shutil

import pytest
from running import asr

from asr.errors import InputError
from asr.report.compare import as_json, compare, draw, rows, runs_in


@pytest.fixture
def pair(tone_run, tmp_path):
    """A finished run, and one with another seed that is in its third epoch."""
    for name in ("a", "b"):
        shutil.copytree(tone_run, tmp_path / name)
    other = tmp_path / "b"
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("seed: 1\n", "seed: 9\n"))
    lines = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()[:2]]
    for line, rate, wall_s in zip(lines, (0.25, 0.5), (60.0, 3725.0), strict=True):
        line |= {"dev_PER": rate, "wall_s": wall_s}
    (other / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (other / "results.json").unlink()
    shutil.rmtree(other / "decoded")
    return tmp_path / "a", other


def test_the_table_holds_what_the_runs_hold(pair):
    results = json.loads((pair[0] / "results.json").read_text())
    comparison = compare(pair)
    assert comparison.differing == ["seed"]
    table = dict(rows(comparison))
    assert table["seed"] == ["1", "9"]
    assert table["parameters"] == [f"{results['parameters']:,}"] * 2
    assert table["epochs"] == ["12", "2 ..."]
    assert table["training time"][1] == "1:02:05"
    assert table["best epoch on dev"][1] == "PER 25.00 %, epoch 1"
    rate = results["sets"]["test"]["greedy"]["PER"]["error_rate"]
    cells = table["test greedy PER"]
    assert cells[0].startswith(f"{100 * rate:.2f} % (")
    assert cells[1] == ""
    assert any("unfinished, 2 of 12 epochs" in note for note in comparison.notes)


def test_json_has_fractions_and_seconds(pair):
    first, second = as_json(compare(pair))["runs"]
    assert first["finished"] is True
    assert first["rates"]["test beam PER"]["interval"].keys() >= {"low", "high"}
    assert second["finished"] is False
    assert (second["best_dev_rate"], second["best_epoch"], second["training_s"]) == (0.25, 1, 3725)
    assert second["settings"] == {"seed": 9}


def test_other_units_and_sets_are_noted(pair):
    config = pair[1] / "config.yaml"
    text = config.read_text().replace("score_fold: cmu40", "score_fold: none")
    config.write_text(text.replace("dev: dev", "dev: test"))
    notes = compare(pair).notes
    assert any("not to be compared" in note for note in notes)
    assert any("corpus.dev differ" in note for note in notes)


def test_a_run_in_its_first_epoch_is_left_out(pair):
    (pair[1] / "metrics.jsonl").write_text("")
    comparison = compare(pair)
    assert len(comparison.runs) == 1
    assert comparison.notes == [f"{pair[1]}: left out, its first epoch has not ended"]
    with pytest.raises(InputError, match="nothing to compare"):
        compare(pair[1:])


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture(pair, tmp_path, suffix):
    out = tmp_path / f"curves{suffix}"
    draw(compare(pair), out)
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG") if suffix == ".png" else b"<svg" in data
    with pytest.raises(InputError, match=r"\.svg"):
        draw(compare(pair), tmp_path / "curves.txt")


def test_the_command(pair, monkeypatch, capsys):
    code, out, err = asr(monkeypatch, capsys, "compare", *pair)
    assert code == 0
    assert "25.00 %, epoch 1" in out
    assert "unfinished" in err
    code, out, _ = asr(monkeypatch, capsys, "compare", *pair, "--json")
    assert code == 0
    found = json.loads(out)["runs"]
    assert [run["name"] for run in found] == ["a", "b"]
    assert [run["folder"] for run in found] == [str(run) for run in pair]
    code, _, err = asr(monkeypatch, capsys, "compare", pair[0] / "model")
    assert code == 2
    assert err.count("\n") == 1


def test_a_folder_stands_for_the_runs_below_it_and_the_best_come_first(pair, tmp_path):
    (tmp_path / "a/.hydra").mkdir()
    (tmp_path / "a/.hydra/config.yaml").write_text("seed: 1")
    (tmp_path / "up").symlink_to(".")
    runs = compare([tmp_path]).runs
    assert [(run.name, run.folder) for run in runs] == [(run.name, str(run)) for run in pair]
    lines = [json.loads(line) for line in (pair[0] / "metrics.jsonl").read_text().splitlines()]
    worse = "".join(json.dumps(line | {"dev_PER": 0.9}) + "\n" for line in lines)
    (pair[0] / "metrics.jsonl").write_text(worse)
    assert [run.name for run in compare([*pair, tmp_path]).runs] == ["b", "a"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty: neither is a run nor holds one: expected config"):
        compare([empty])


def test_runs_are_ordered_by_the_numbers_in_their_names(tmp_path):
    for name in ("10", "9", "lr=0.1/2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    assert [str(run.relative_to(tmp_path)) for run in runs_in(tmp_path)] == ["9", "10", "lr=0.1/2"]
