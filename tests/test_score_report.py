import csv
import json

import pytest

from asr.errors import InputError
from asr.score.error_rate import align, policy_name, total
from asr.score.report import Scored, by_speaker, error_counts, speaker_of, write_report

PAIRS = {
    "f1-1": ("the cat sat", "the dog sat"),
    "f1-2": ("a cat end", "a dog end now"),
    "m2-1": ("the end", "end"),
    "m2-2": ("", "now"),
}


@pytest.fixture
def utterances():
    alignments = align([(r.split(), h.split()) for r, h in PAIRS.values()])
    return [Scored(i, speaker_of(i), a) for i, a in zip(PAIRS, alignments, strict=True)]


def scores_of(utterances):
    return total([u.alignment for u in utterances], "word", policy_name("word"))


@pytest.mark.parametrize(
    ("utterance", "speaker"),
    [("f1-2", "f1"), ("fdhc0_sx1", "fdhc0"), ("a_b-c", "a"), ("123", ""), ("", "")],
)
def test_speaker_of_an_id(utterance, speaker):
    assert speaker_of(utterance) == speaker


def test_speakers_add_up(utterances):
    speakers = by_speaker(utterances, "word", "")
    assert {s: of.substitutions for s, of in speakers.items()} == {"f1": 2, "m2": 0}
    assert speakers["m2"].deletions == speakers["m2"].insertions == 1


def test_errors_by_frequency(utterances):
    assert [(e.error, e.reference, e.hypothesis, e.count) for e in error_counts(utterances)] == [
        ("S", "cat", "dog", 2),
        ("D", "the", None, 1),
        ("I", None, "now", 2),
    ]


def test_report_files_agree(utterances, tmp_path):
    scores = scores_of(utterances)
    write_report(tmp_path / "out", scores, utterances)
    document = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert document["substitutions"] == 2
    assert document["policy"] == "words, as written"
    assert [s["speaker"] for s in document["speakers"]] == ["f1", "m2"]
    assert document["utterance_list"][3]["error_rate"] is None
    with (tmp_path / "out" / "errors.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert rows[0] == {
        "error": "substitution",
        "reference": "cat",
        "hypothesis": "dog",
        "count": "2",
    }
    for name, n in (("speakers", 2), ("utterances", 4)):
        with (tmp_path / "out" / f"{name}.csv").open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        assert len(rows) == n
        assert sum(int(row["insertions"]) for row in rows) == scores.insertions
    text = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines()]
    assert "f1 2 6 4 2 0 1 50.00 % 100.00 %".split() in rows
    assert "all 4 8 5 2 1 2 62.50 % 100.00 %".split() in rows
    assert "     2  cat -> dog" in text
    assert "REF:  the cat sat\nHYP:  the dog sat\nEVAL:     S" in text


def test_report_without_errors_has_headers(tmp_path):
    (alignment,) = align([(["a"], ["a"])])
    utterances = [Scored("1", "", alignment)]
    write_report(tmp_path, scores_of(utterances), utterances)
    errors = (tmp_path / "errors.csv").read_text(encoding="utf-8")
    assert errors == "error,reference,hypothesis,count\n"
    rows = [line.split() for line in (tmp_path / "report.txt").read_text("utf-8").splitlines()]
    assert "? 1 1 1 0 0 0 0.00 % 0.00 %".split() in rows


def test_report_into_a_file_is_refused(utterances, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "taken", scores_of(utterances), utterances)
