import csv
import json

import pytest

from asr.errors import InputError
from asr.score.alignment import align
from asr.score.error_rate import policy_name, total
from asr.score.report import by_speaker, error_counts, speaker_of, write_report

PAIRS = {
    "f1-1": ("the cat sat", "the dog sat"),
    "f1-2": ("a cat end", "a dog end now"),
    "m2-1": ("the end", "end"),
    "m2-2": ("", "now"),
}


SPEAKERS = ["f1", "f1", "m2", "m2"]


@pytest.fixture
def alignments():
    return align([(r.split(), h.split()) for r, h in PAIRS.values()])


def scores_of(alignments):
    return total(alignments, "word", policy_name("word"))


@pytest.mark.parametrize(
    ("utterance", "speaker"),
    [("f1-2", "f1"), ("fdhc0_sx1", "fdhc0"), ("a_b-c", "a"), ("123", ""), ("", "")],
)
def test_speaker_of_an_id(utterance, speaker):
    assert speaker_of(utterance) == speaker


def test_speakers_add_up(alignments):
    speakers = by_speaker(alignments, SPEAKERS, "word", "")
    assert {s: of.substitutions for s, of in speakers.items()} == {"f1": 2, "m2": 0}
    assert speakers["m2"].deletions == speakers["m2"].insertions == 1


def test_errors_by_frequency(alignments):
    assert error_counts(alignments) == {
        "S": [(("cat", "dog", "S"), 2)],
        "D": [(("the", None, "D"), 1)],
        "I": [((None, "now", "I"), 2)],
    }


def test_report_files_agree(alignments, tmp_path):
    scores = scores_of(alignments)
    unmatched = {"missing": ("m2-2",), "unscored": ()}
    write_report(tmp_path / "out", scores, list(PAIRS), SPEAKERS, alignments, unmatched)
    document = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert (document["missing"], document["unscored"]) == (["m2-2"], [])
    assert "missing: 1\nm2-2\n" in (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
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
    with (tmp_path / "out" / "aligned.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == sum(len(a.columns) for a in alignments)
    assert rows[1] == {"id": "f1-1", "reference": "cat", "hypothesis": "dog", "error": "S"}
    text = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines()]
    assert "f1 2 6 4 2 0 1 50.00 % 100.00 %".split() in rows
    assert "all 4 8 5 2 1 2 62.50 % 100.00 %".split() in rows
    assert "mean 2.0 4.0 2.5 1.0 0.5 1.0 75.00 % 100.00 %".split() in rows
    assert "     2  cat -> dog" in text
    assert "REF:  the cat sat\nHYP:  the dog sat\nEVAL:     S" in text


def test_report_without_errors_has_headers(tmp_path):
    alignments = align([(["a"], ["a"])])
    write_report(tmp_path, scores_of(alignments), ["1"], [""], alignments)
    errors = (tmp_path / "errors.csv").read_text(encoding="utf-8")
    assert errors == "error,reference,hypothesis,count\n"
    rows = [line.split() for line in (tmp_path / "report.txt").read_text("utf-8").splitlines()]
    assert "? 1 1 1 0 0 0 0.00 % 0.00 %".split() in rows


def test_report_into_a_file_is_refused(alignments, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "taken", scores_of(alignments), list(PAIRS), SPEAKERS, alignments)


def test_cells_that_spreadsheets_would_compute_are_text(tmp_path):
    words = ["=1+1", "+1", "-x", "@a", "x=1"]
    alignments = align([([word], ["a"]) for word in words])
    scores = total(alignments, "word", "words")
    write_report(tmp_path, scores, words, [""] * len(words), alignments)
    for name in ("utterances", "errors", "aligned"):
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as handle:
            cells = {cell for row in csv.reader(handle) for cell in row}
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]
        assert {"'=1+1", "'+1", "'-x", "'@a", "x=1"} <= cells
