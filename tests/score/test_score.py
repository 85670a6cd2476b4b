import json
import math
import sys
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.cli import main
from asr.cli import score as score_command
from asr.errors import InputError
from asr.labels import FOLDINGS, SILENCE_POLICIES, SPACE, UNITS
from asr.score.alignment import align
from asr.score.error_rate import (
    phone_policy,
    policy_name,
    score_pairs,
    total,
)
from asr.score.read import match, read_transcripts, token_pairs, tokens
from asr.score.show import aligned_text, as_json, summary_line

TOKENS = st.lists(
    st.sampled_from(["a", "b", "c", "a b", "", "\u2028", "日本", "<space>"]), max_size=7
)


def scored(*pairs, unit="word"):
    return score_pairs([(r.split(), h.split()) for r, h in pairs], unit, policy_name(unit))


def counts(scores):
    return scores.substitutions, scores.deletions, scores.insertions, scores.hits


def edit_distance(reference, hypothesis):
    row = list(range(len(hypothesis) + 1))
    for i, r in enumerate(reference, 1):
        previous, row = row, [i]
        for j, h in enumerate(hypothesis, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (r != h)))
    return row[-1]


# Counts


def test_planted_counts():
    scores = scored(("the cat sat on the mat", "the cat sit on mat now please"), ("a b c", "a c"))
    # Either "the mat" -> "mat now" + "please", or two substitutions and an insertion.
    assert scores.substitutions + scores.deletions + scores.insertions == 5
    assert counts(scored(("a b c d", "a x c d e"))) == (1, 0, 1, 3)
    assert counts(scored(("a b c d", "b d"))) == (0, 2, 0, 2)
    assert counts(scored(("a", "b"))) == (1, 0, 0, 0)


def test_the_rate_is_of_the_corpus_not_a_mean_of_rates():
    scores = scored(("a", "b"), ("a b c d e f g h i", "a b c d e f g h i"))
    assert scores.error_rate == 1 / 10  # the mean of rates would be 1/2
    assert scores.utterance_error_rate == 1 / 2


def test_empty_references_and_hypotheses():
    scores = scored(("", "x y"), ("a b", ""), ("", ""), ("c", "c"))
    assert counts(scores) == (0, 2, 2, 1)
    assert (scores.utterances, scores.wrong_utterances) == (4, 2)
    assert scores.error_rate == 4 / 3


def test_rates_without_reference_tokens_are_undefined():
    scores = scored(("", "x"), ("", ""))
    assert math.isnan(scores.error_rate)
    assert as_json(scores)["error_rate"] is None
    assert summary_line(scores).startswith("WER undefined, no reference words  [S 0, D 0, I 1 of 0")
    nothing = score_pairs([], "word", "words, as written")
    assert as_json(nothing)["utterance_error_rate"] is None
    assert "0 utterances]" in summary_line(nothing)


@settings(deadline=None)
@given(st.lists(st.tuples(TOKENS, TOKENS), max_size=3))
def test_counts_agree_with_brute_force_edit_distance(pairs):
    alignments = align(pairs)
    scores = total(alignments, "word", "")
    errors = scores.substitutions + scores.deletions + scores.insertions
    assert errors == sum(edit_distance(r, h) for r, h in pairs)
    assert scores.hits + scores.substitutions + scores.deletions == sum(len(r) for r, _ in pairs)
    assert scores.hits + scores.substitutions + scores.insertions == sum(len(h) for _, h in pairs)
    for (reference, hypothesis), alignment in zip(pairs, alignments, strict=True):
        columns = alignment.columns
        assert [c.reference for c in columns if c.error != "I"] == reference
        assert [c.hypothesis for c in columns if c.error != "D"] == hypothesis
        letters = [c.error for c in columns]
        assert letters.count("S") == alignment.substitutions
        assert letters.count("D") == alignment.deletions
        assert letters.count("I") == alignment.insertions
        assert all(c.reference == c.hypothesis for c in columns if c.error == "")
        assert all(c.reference != c.hypothesis for c in columns if c.error == "S")
        assert all(c.reference is None for c in columns if c.error == "I")
        assert all(c.hypothesis is None for c in columns if c.error == "D")


# Phones


def test_folding():
    phones = ["h#", "b", "ax", "tcl", "t", "axr", "q", "epi"]
    assert phone_policy(phones, "none", "count") == phones
    assert phone_policy(phones, "timit48", "count") == ["sil", "b", "ax", "cl", "t", "er", "epi"]
    assert phone_policy(phones, "timit39", "count") == ["sil", "b", "ah", "sil", "t", "er", "sil"]


# After folding: "sil sil b sil sil sil" against "sil b sil".
REFERENCE, HYPOTHESIS = ["h#", "pau", "b", "bcl", "q", "pau", "h#"], ["h#", "b", "h#"]


@pytest.mark.parametrize(
    ("silence", "planted"),
    [("count", (0, 3, 0, 3)), ("merge", (0, 0, 0, 3)), ("ignore", (0, 0, 0, 1))],
)
def test_silence_policies(silence, planted):
    pair = [phone_policy(side, "timit39", silence) for side in (REFERENCE, HYPOTHESIS)]
    scores = score_pairs([tuple(pair)], "phone", policy_name("phone", "timit39", silence))
    assert counts(scores) == planted
    assert scores.policy.startswith("phones folded to timit39, silence ")


def test_silence_without_folding_is_sil_h_and_pau_but_no_closure():
    phones = ["h#", "pau", "bcl", "b", "sil", "sil", "a", "h#"]
    assert phone_policy(phones, "none", "merge") == ["h#", "bcl", "b", "sil", "a", "h#"]
    assert phone_policy(phones, "none", "ignore") == ["bcl", "b", "a"]


def test_stray_phone_names_its_line():
    with pytest.raises(InputError, match=r"r\.trn:3: phone 'xx' is not in the inventory"):
        phone_policy(["xx"], "timit39", "count", "r.trn:3")
    with pytest.raises(InputError, match="silence policy 'drop' does not exist"):
        phone_policy([], "timit39", "drop")


def test_policies_are_named():
    assert policy_name("word") == "words, as written"
    assert policy_name("char") == "characters, as written"
    assert policy_name("phone") == "phones as written, silence counted"
    assert policy_name("phone", "timit39", "ignore") == "phones folded to timit39, silence ignored"


@pytest.mark.parametrize(("unit", "name"), [("word", "WER"), ("char", "CER"), ("phone", "PER")])
def test_the_unit_names_the_rate(unit, name):
    assert summary_line(scored(("a b", "a c"), unit=unit)).startswith(f"{name} 50.00 %  [S 1, ")


# Readers


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


FILES = {
    "r.txt": "the cat\n\nmüde\n",
    "r.trn": ";; comment\nthe cat (u1)\n(u2)\nmüde (u3)\n",
    "text": "u1 the cat\nu2\nu3\tmüde\n",
    "r.tsv": "a/u1.wav\tthe cat\nu2.flac\t\nb c/u3.wav\tmüde\n",
    "r.jsonl": '{"id": "u1", "text": "the cat"}\n\n{"id": "u2", "text": ""}\n'
    '{"audio_filepath": "/x/u3.wav", "text": "müde"}\n',
    "r.json": '[{"id": "u1", "text": "the cat"},\n{"id": "u2", "text": ""},'
    '\n{"id": "u3", "text": "m\\u00fcde"}]\n',
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_format_reads_the_same_words(tmp_path, name, ending):
    path = tmp_path / name
    path.write_bytes(FILES[name].replace("\n", ending).encode("utf-8-sig"))
    transcripts = read_transcripts(path)
    ids = {
        "r.txt": ["1", "2", "3"],
        "r.tsv": ["a/u1.wav", "u2.flac", "b c/u3.wav"],
        "r.jsonl": ["u1", "u2", "/x/u3.wav"],
    }
    assert list(transcripts.lines) == ids.get(name, ["u1", "u2", "u3"])
    assert [tokens(line, "word") for line in transcripts.lines.values()] == [
        ["the", "cat"],
        [],
        ["müde"],
    ]


def test_hypotheses_that_name_their_audio_find_their_reference(tmp_path):
    """What `asr transcribe` prints scores against a manifest, whatever the manifest's ids."""
    reference = written(
        tmp_path / "ref.jsonl",
        f'{{"id": "f1_sx1", "audio_filepath": "{tmp_path}/f1/SX1.WAV", "text": "a b"}}\n'
        f'{{"id": "m2_sx1", "audio_filepath": "{tmp_path}/m2/SX1.WAV", "text": "c"}}\n'
        f'{{"id": "m2_si7", "audio_filepath": "{tmp_path}/m2/SI7.WAV", "text": "d"}}\n',
    )
    hypothesis = written(
        tmp_path / "hyp.tsv",
        f"{tmp_path}/m2/SX1.WAV\tc\n{tmp_path}/f1/SX1.WAV\ta b\nelsewhere/SI7.flac\td\n",
    )
    matched = match(read_transcripts(reference), read_transcripts(hypothesis, hypothesis=True))
    assert matched.missing == matched.unscored == ()
    assert all(ref == hyp for ref, hyp in token_pairs(matched, "word"))


def test_an_id_may_be_the_name_of_the_audio(tmp_path):
    reference = written(tmp_path / "ref.trn", "a b (u1)\n")
    hypothesis = written(tmp_path / "hyp.tsv", "some/where/u1.wav\ta b\n")
    matched = match(read_transcripts(reference), read_transcripts(hypothesis, hypothesis=True))
    assert token_pairs(matched, "word") == [(["a", "b"], ["a", "b"])]


def test_two_hypotheses_for_one_reference_are_refused(tmp_path):
    reference = written(tmp_path / "ref.trn", "a b (u1)\n")
    hypothesis = written(tmp_path / "hyp.tsv", "x/u1.wav\ta b\ny/u1.wav\ta\n")
    with pytest.raises(InputError, match=r"hyp\.tsv:2: a second hypothesis for 'u1'"):
        match(read_transcripts(reference), read_transcripts(hypothesis, hypothesis=True))


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("hyp", '{"id": "a", "text": "b"}\n', "jsonl"),
        ("hyp", "b c (a)\n(d)\n", "trn"),
        ("hyp", "b c (a)\nd\n", "txt"),
        ("hyp.txt", "b c (a)\n", "txt"),
        ("hyp.txt", "a.wav\tb\n", "tsv"),
        ("hyp.TRN", "b (a)\n", "trn"),
        ("text", "a\tb\n", "kaldi"),
        ("hyp", "", "txt"),
    ],
)
def test_format_detection(tmp_path, name, text, format):
    assert read_transcripts(written(tmp_path / name, text)).format == format


def test_a_given_format_wins(tmp_path):
    path = written(tmp_path / "hyp.txt", "u1 a b\n")
    assert list(read_transcripts(path, "kaldi").lines) == ["u1"]
    with pytest.raises(InputError, match="format 'ctx' does not exist; choose one of txt, trn"):
        read_transcripts(path, "ctx")


def test_phones_come_from_the_phones_field_else_from_the_text(tmp_path):
    path = written(
        tmp_path / "m.jsonl",
        '{"id": "a", "text": "bee", "phones": [["b", 0.0, 0.1], ["iy", 0.1, 0.2]]}\n'
        '{"id": "b", "text": "bee", "phones": ["b", {"label": "ix"}]}\n'
        '{"id": "c", "text": "b iy"}\n',
    )
    lines = read_transcripts(path).lines.values()
    assert [tokens(line, "phone", "timit39") for line in lines] == [
        ["b", "iy"],
        ["b", "ih"],
        ["b", "iy"],
    ]
    assert next(tokens(line, "word") for line in lines) == ["bee"]


def test_characters_count_single_spaces(tmp_path):
    line = read_transcripts(written(tmp_path / "a.txt", " a  é\u3000b \n")).lines["1"]
    assert tokens(line, "char") == ["a", SPACE, "é", SPACE, "b"]


def test_nemo_hypotheses_are_pred_text(tmp_path):
    path = written(
        tmp_path / "nemo.jsonl", '{"audio_filepath": "u.wav", "text": "a b", "pred_text": "a c"}\n'
    )
    matched = match(read_transcripts(path), read_transcripts(path, hypothesis=True))
    assert token_pairs(matched, "word") == [(["a", "b"], ["a", "c"])]


def test_missing_and_unscored_are_told_apart(tmp_path):
    references = read_transcripts(written(tmp_path / "r.trn", "a b (u1)\nc (u2)\n"))
    hypotheses = read_transcripts(written(tmp_path / "h.trn", "z (u9)\na b (u1)\n"))
    matched = match(references, hypotheses)
    assert (matched.missing, matched.unscored) == (("u2",), ("u9",))
    assert token_pairs(matched, "word") == [(["a", "b"], ["a", "b"]), (["c"], [])]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.trn", "a (u1)\nno id\n", r"r.trn:2: expected 'words \(utterance_id\)', found 'no id'"),
        ("r.trn", "a (u1)\nb (u1)\n", "r.trn:2: utterance id 'u1' was given before, at .*r.trn:1"),
        ("text", "u1 a\nu1 b\n", "text:2: utterance id 'u1' was given before"),
        ("r.tsv", "a.wav\tb\nno tab\n", "r.tsv:2: expected 'path TAB text'"),
        ("r.jsonl", '{"id": "a", "text": "b"}\n{"id":\n', "r.jsonl:2: is not JSON"),
        ("r.jsonl", '{"id": "a"}\n[1]\n', "r.jsonl:2: expected a JSON object"),
        ("r.jsonl", '{"text": "a"}\n', "r.jsonl:1: expected 'id'"),
        ("r.jsonl", '{"id": "a", "text": 3}\n', "r.jsonl:1: expected 'text' to be a string"),
        ("r.jsonl", '{"id": "a", "phones": 3}\n', "r.jsonl:1: expected 'phones' to be a list"),
        ("r.jsonl", '{"id": "a", "phones": [[]]}\n', "r.jsonl:1: expected 'phones' to be a list"),
        ("r.jsonl", "[" * 100_000, "r.jsonl:1: is not JSON"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_transcripts(written(tmp_path / name, text))


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_transcripts(tmp_path / "none.trn")
    with pytest.raises(InputError, match=r"no \.PHN, \.WRD or \.TXT file"):
        read_transcripts(tmp_path)
    (tmp_path / "latin.txt").write_bytes("müde".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt:1: is not UTF-8 text"):
        read_transcripts(tmp_path / "latin.txt")


def test_lines_that_cannot_be_scored(tmp_path):
    line = read_transcripts(written(tmp_path / "r.jsonl", '{"id": "a"}\n')).lines["a"]
    with pytest.raises(InputError, match=r"r\.jsonl:1: has no text to score"):
        tokens(line, "word")
    with pytest.raises(InputError, match=r"r\.jsonl:1: has no phones and no text to score"):
        tokens(line, "phone")


def test_sets_that_cannot_be_matched(tmp_path):
    two = read_transcripts(written(tmp_path / "two.txt", "a\nb\n"))
    three = read_transcripts(written(tmp_path / "three.txt", "a\nb\nc\n"))
    named = read_transcripts(written(tmp_path / "r.trn", "a (u1)\n"))
    other = read_transcripts(written(tmp_path / "h.trn", "a (u2)\n"))
    empty = read_transcripts(written(tmp_path / "empty.txt", ""))
    with pytest.raises(InputError, match=r"two\.txt has 2 lines and .*three\.txt has 3;"):
        match(two, three)
    with pytest.raises(InputError, match=r"two\.txt: plain text has no utterance ids"):
        match(named, two)
    with pytest.raises(InputError, match=r"no utterance id in common .*'u1' and 'u2'"):
        match(named, other)
    with pytest.raises(InputError, match=r"empty\.txt: holds no transcripts"):
        match(empty, two)


# Folders of sidecars


@pytest.fixture
def sidecars(tmp_path):
    """Two TIMIT utterances; the second has no words but a sentence."""
    folder = tmp_path / "TIMIT" / "TEST" / "DR1" / "FAKS0"
    folder.mkdir(parents=True)
    written(folder / "SA1.PHN", "0 100 h#\n100 200 ax\n200 300 b\n")
    written(folder / "SA1.WRD", "100 200 a\n200 300 bee\n")
    written(folder / "SA1.TXT", "0 300 A bee!\n")
    written(folder / "SX2.txt", "0 300 Hello, bee.\n")
    written(folder / "SX2.phn", "0 100 h#\n")
    written(folder / "SX2.WAV", "")
    return tmp_path / "TIMIT"


def test_sidecars(sidecars):
    transcripts = read_transcripts(sidecars)
    first, second = transcripts.lines.values()
    assert list(transcripts.lines) == ["TEST/DR1/FAKS0/SA1", "TEST/DR1/FAKS0/SX2"]
    assert tokens(first, "phone", "timit39") == ["sil", "ah", "b"]
    assert (first.text, second.text.split()) == ("a bee", ["Hello,", "bee."])
    assert first.speaker == "FAKS0"
    assert read_transcripts(sidecars, "timit").lines == transcripts.lines


@pytest.mark.parametrize(
    "hypothesis",
    [
        '{"id": "faks0_sa1", "text": "a bee"}\n{"id": "faks0_sx2", "text": "hello"}\n',
        '{"id": "a", "audio_filepath": "x/FAKS0/SX2.wav", "text": "hello"}\n'
        '{"id": "sa1", "text": "a bee"}\n',
    ],
)
def test_sidecars_are_found_by_speaker_and_name(sidecars, tmp_path, hypothesis):
    hypotheses = read_transcripts(written(tmp_path / "h.jsonl", hypothesis))
    matched = match(read_transcripts(sidecars), hypotheses)
    assert matched.missing == matched.unscored == ()
    assert [line.text for _, line in matched.pairs] == ["a bee", "hello"]


def test_a_flat_folder_of_hypotheses(sidecars, tmp_path):
    (tmp_path / "out").mkdir()
    written(tmp_path / "out" / "faks0_sa1.txt", "a bee\n")
    matched = match(read_transcripts(sidecars), read_transcripts(tmp_path / "out"))
    assert token_pairs(matched, "word")[0] == (["a", "bee"], ["a", "bee"])
    assert matched.missing == ("TEST/DR1/FAKS0/SX2",)


def test_spoilt_sidecars(sidecars):
    folder = sidecars / "TEST" / "DR1" / "FAKS0"
    written(folder / "SA1.PHN", "0 100 h#\n100 x\n")
    with pytest.raises(InputError, match=r"SA1\.PHN:2: expected 'start end label', found '100 x'"):
        read_transcripts(sidecars)
    written(folder / "SA1.phn", "")
    with pytest.raises(InputError, match=r"SA1\.(PHN|phn): a second copy of .*SA1\.(PHN|phn)"):
        read_transcripts(sidecars)
    with pytest.raises(InputError, match="is a folder; expected a file of format trn"):
        read_transcripts(sidecars, "trn")


# Output


def test_aligned_text_wraps_by_terminal_cells():
    (alignment,) = align([(["one", "日本", "three", "four"], ["one", "日", "three"])])
    assert aligned_text(alignment, 80) == (
        "REF:  one 日本 three four\nHYP:  one 日   three *\nEVAL:     S          D"
    )
    narrow = aligned_text(alignment, 20)
    assert narrow == (
        "REF:  one 日本 three\nHYP:  one 日   three\nEVAL:     S\n\nREF:  four\nHYP:  *\nEVAL: D"
    )
    assert aligned_text(alignment, 1).count("REF:") == 4


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `asr score ...`; return its exit status, standard output and standard error."""

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["asr", "score", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run_command


@pytest.fixture
def pair(tmp_path):
    return (
        written(tmp_path / "r.trn", "the cat sat (u1)\nhello (u2)\nh# b (u3)\n"),
        written(tmp_path / "h.trn", "the dog sat (u1)\nhello (u2)\nmore (u9)\n"),
    )


def test_command_prints_one_line_and_lists_what_does_not_match(run, pair):
    status, out, err = run(*pair, "--unit", "word")
    assert status == 0
    assert out == (
        "WER 50.00 %  [S 1, D 2, I 0 of 6 words; 3 utterances, 66.67 % wrong]"
        "  (words, as written)\n"
    )
    assert "h.trn: 1 reference(s) without a hypothesis, scored as all deleted: u3" in err
    assert "h.trn: 1 hypotheses without a reference, not scored: u9" in err


def test_command_shows_the_errors_only(run, pair):
    lines = run(*pair, "--errors")[1].splitlines()
    assert lines[1:6] == [
        "",
        "u1  [S 1, D 0, I 0 of 3]",
        "REF:  the cat sat",
        "HYP:  the dog sat",
        "EVAL:     S",
    ]
    assert not any(line.startswith("u2") for line in lines)


def test_command_json_has_these_keys(run, pair):
    figures = json.loads(run(*pair, "--unit", "char", "--json")[1])
    assert list(figures) == [
        "unit",
        "error_rate",
        "substitutions",
        "deletions",
        "insertions",
        "hits",
        "reference_length",
        "utterances",
        "utterance_error_rate",
        "policy",
        "missing",
        "unscored",
    ]
    assert (figures["missing"], figures["unscored"]) == (["u3"], ["u9"])
    assert figures["error_rate"] == 7 / 20
    assert figures["policy"] == "characters, as written"
    errors = json.loads(run(*pair, "--json", "--errors")[1])["errors"]
    assert errors[0] == {
        "id": "u1",
        "alignment": [["the", "the", ""], ["cat", "dog", "S"], ["sat", "sat", ""]],
    }


def test_command_folds_phones(run, tmp_path):
    reference = written(tmp_path / "r.trn", "h# b ax pau h# (u)\n")
    hypothesis = written(tmp_path / "h.txt", "u sil b ah sil\n")
    options = ["--unit", "phone", "--fold", "timit39", "--format", "trn,kaldi"]
    _, out, _ = run(reference, hypothesis, *options)
    assert out.startswith("PER 20.00 %  [S 0, D 1, I 0 of 5 phones; 1 utterance, ")
    assert out.endswith("(phones folded to timit39, silence counted)\n")
    merged = json.loads(run(reference, hypothesis, *options, "--silence=merge", "--json")[1])
    assert (merged["error_rate"], merged["reference_length"]) == (0.0, 4)


def test_command_refuses_in_one_line(run, pair, tmp_path):
    assert run(*pair, "--unit", "phoneme")[0] == 2
    status, out, err = run(pair[0], tmp_path / "none")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert run(*pair, "--fold", "timit39")[::2] == (
        2,
        "asr: fold and silence are for phones, not for unit word\n",
    )


def test_command_aligns_as_nist_does(run, tmp_path):
    reference = written(tmp_path / "r.trn", "Hello { big / @ } (uh) World (u1)\n")
    hypothesis = written(tmp_path / "h.trn", "hello world (u1)\n")
    _, out, _ = run(reference, hypothesis, "--alignment", "nist")
    assert out.startswith("WER 0.00 %  [S 0, D 0, I 0 of 3 words;")
    assert out.endswith("(words, in lower case, NIST alignment)\n")
    bad = written(tmp_path / "bad.trn", "{ a (u1)\n")
    status, _, err = run(bad, hypothesis, "--alignment", "nist")
    assert (status, err) == (2, f"asr: {bad}:1: '{{' without '}}': '{{ a'\n")


def test_command_gives_intervals_and_compares(run, pair, tmp_path):
    other = written(tmp_path / "b.trn", "the cat sat (u1)\nhello (u2)\nh# b (u3)\n")
    _, out, _ = run(*pair, "--intervals")
    assert out.splitlines()[1].startswith("  95 % interval ")
    assert json.loads(run(*pair, "--intervals", "--json")[1])["over_utterances"]["groups"] == 3
    _, out, _ = run(*pair, other, "--compare")
    assert out.startswith("h: WER 50.00 %")
    assert "\nb: WER 0.00 %" in out
    assert "\nb less h: -50.00 %\n" in out
    assert "b alone has 0 wrong of" in out
    document = json.loads(run(*pair, other, "--compare", "--json")[1])
    assert [system["name"] for system in document["systems"]] == ["h", "b"]
    assert document["pairs"][0]["difference"] == -0.5
    assert run(*pair, other)[0] == run(*pair, "--compare")[0] == 2
    assert run(*pair, other, "--compare", "--errors")[0] == 2


def test_command_compares_several_and_writes_what_it_found(run, pair, tmp_path):
    others = [tmp_path / name / "test.trn" for name in ("x", "y")]
    for other in others:
        other.parent.mkdir()
        written(other, "the cat sat (u1)\nhello (u2)\nh# b (u3)\n")
    status, out, err = run(pair[0], *others, *others[:1], "--compare", "--report", tmp_path / "out")
    assert (status, err) == (0, "")
    assert [line.split(" less ")[0] for line in out.splitlines() if " less " in line] == [
        "y",
        "x (2)",
        "x (2)",
    ]
    assert "there are 3 pairs" in out
    assert (tmp_path / "out/comparison.txt").read_text() == out
    assert len(json.loads((tmp_path / "out/comparison.json").read_text())["pairs"]) == 3
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == {"x", "x (2)", "y"}
    assert (tmp_path / "out/y/report.txt").read_text().startswith("WER 0.00 %")


def test_command_applies_a_file_of_rules(run, tmp_path):
    reference = written(tmp_path / "r.trn", "It's gonna rain, uh, in Falkner (u1)\n")
    hypothesis = written(tmp_path / "h.trn", "it is going to rain in faulkner (u1)\n")
    glm = written(
        tmp_path / "en.glm",
        ";; rules\n* case_sensitive = 'F'\ngonna => going to / [ ] __ [ ]\n"
        "IT'S => {IT'S / IT IS}\n[, UH,] => [ (UH)]\nFALKNER => FAULKNER\n",
    )
    status, out, err = run(reference, hypothesis, "--alignment", "nist", "--glm", glm)
    assert (status, err) == (0, "")
    assert out.startswith("WER 0.00 %  [S 0, D 0, I 0 of 8 words;")
    assert out.endswith("(words, by en.glm, in lower case, NIST alignment)\n")
    status, _, err = run(reference, hypothesis, "--glm", glm)
    assert (status, "say --alignment nist" in err) == (2, True)
    bad = written(tmp_path / "bad.glm", ";;\nA B\n")
    status, _, err = run(reference, hypothesis, "--alignment", "nist", "--glm", bad)
    assert (status, "bad.glm:2: expected 'A => B' or" in err) == (2, True)


def test_command_makes_both_sides_alike(run, tmp_path):
    reference = written(tmp_path / "r.trn", "It's well-known. (u1)\n")
    hypothesis = written(tmp_path / "h.trn", "it's WELL known (u1)\n")
    _, out, _ = run(reference, hypothesis, "--normalise", "case, punctuation")
    assert out.startswith("WER 0.00 %  [S 0, D 0, I 0 of 3 words;")
    assert out.endswith("(words, in lower case, without punctuation)\n")
    status, _, err = run(reference, hypothesis, "--normalise", "speling")
    assert (status, err.count("\n")) == (2, 1)


def test_command_scores_segments_of_recordings(run, tmp_path):
    reference = written(
        tmp_path / "r.stm", "f 1 ann 0 1 the (uh) cat\nf 1 bob 1 2 { sat / sits }\n"
    )
    hypothesis = written(tmp_path / "h.ctm", "f 1 0.1 0.2 the\nf 1 0.5 0.2 cat\nf 1 1.5 0.2 sits\n")
    options = ["--unit", "word", "--alignment", "nist"]
    figures = json.loads(run(reference, hypothesis, *options, "--json")[1])
    assert (figures["error_rate"], figures["reference_length"]) == (0, 4)
    assert run(reference, hypothesis, *options, "--report", tmp_path / "out")[0] == 0
    speakers = (tmp_path / "out" / "speakers.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in speakers] == ["speaker", "ann", "bob"]


def test_command_writes_a_report(run, pair, tmp_path):
    assert run(*pair, "--report", tmp_path / "out")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "aligned.csv",
        "errors.csv",
        "report.json",
        "report.txt",
        "speakers.csv",
        "utterances.csv",
    ]


def test_command_offers_what_there_is():
    offered = get_type_hints(score_command.score)
    assert set(get_args(offered["unit"])) == set(UNITS)
    assert set(get_args(offered["fold"])) == set(FOLDINGS)
    assert set(get_args(offered["silence"])) == set(SILENCE_POLICIES)


@pytest.mark.parametrize(
    ("ref", "hyp", "format"),
    [
        ("u1 hello there\nu2 again\n", "u2 again\nu1 hello\n", "kaldi"),
        ("u1 hello there\nu2 again\n", "u2 again\n\nu3 you\nu1 hello\n", "kaldi"),
        ("hello there (u1)\nagain (u2)\n", "hello (u1)\nagain (u2)\n", "trn"),
        ("one two\nthree four\n", "one two\nthree for\n", ""),
        ("u1 hello\nu1 there\n", "u1 hello\nu1 there\n", ""),
        ("\n", "\n", ""),
    ],
)
def test_ids_in_plain_text_are_found_and_told(run, tmp_path, ref, hyp, format):
    pair = written(tmp_path / "r.txt", ref), written(tmp_path / "h.txt", hyp)
    status, out, err = run(*pair)
    assert status == 0
    if format:
        assert err.count(f"every line has its id: read as {format}") == 2
        assert out == run(*pair, "--format", format)[1]
    else:
        assert not err
        assert out == run(*pair, "--format", "txt")[1]


@pytest.mark.parametrize(
    ("ref", "hyp"), [("u1 hello\nu2 there\n", "u1 hello\nu3 there\n"), ("u1 a\n", "u1 b\n")]
)
def test_ids_in_plain_text_that_may_be_words_are_refused(run, tmp_path, ref, hyp):
    pair = written(tmp_path / "r.txt", ref), written(tmp_path / "h.txt", hyp)
    status, out, err = run(*pair)
    assert (status, out) == (2, "")
    assert "say --format kaldi, or --format txt if they are words" in err
    assert run(*pair, "--format", "txt")[0] == 0


def test_plain_text_with_the_ids_of_the_other_file_is_that(run, tmp_path):
    ref = written(tmp_path / "text", "ann hello there\nbob again\n")
    hyp = written(tmp_path / "hyp.txt", "bob again\nann hello\n")
    status, out, err = run(ref, hyp)
    assert (status, "D 1, I 0 of 3 words" in out) == (0, True)
    assert "hyp.txt: every line has its id: read as kaldi" in err


@pytest.mark.parametrize(
    ("name", "hyp"),
    [
        ("h.csv", 'ID,duration,wrd\nu2,1.5,again\nu1,2,"hello, there"\n'),
        ("h.csv", "file_name;transcription\r\nx/u1.wav;hello, there\r\nx/u2.wav;again\r\n"),
        ("h.tsv", "client_id\tpath\tsentence\n7\tu1.mp3\thello, there\n7\tu2.mp3\tagain\n"),
        ("h.csv", 'id,text,pred_text\nu1,no,"hello, there"\nu2,no,again\n'),
        ("piped", 'id,text\nu1,"hello, there"\nu2,again\n'),
    ],
)
def test_tables_are_read_by_the_names_of_their_columns(run, tmp_path, name, hyp):
    ref = written(tmp_path / "ref.trn", "hello, there (u1)\nagain (u2)\n")
    status, out, err = run(ref, written(tmp_path / name, hyp))
    assert (status, err) == (0, "")
    assert "S 0, D 0, I 0 of 3 words" in out


@pytest.mark.parametrize(
    ("hyp", "told"),
    [
        ("u1,hello there\n", ":1: expected a header that names a column of ids (id, "),
        ("", ":1: expected a header"),
        ("id,text\nu1,hello, there\n", ":2: expected 2 cells, found 3"),
        ("id,text\n ,hello\n", ":2: the id is empty"),
        ('id,text\nu1,"hello\n', "is not CSV"),
        ("id,text\nu1,a\nu1,b\n", ":3: utterance id 'u1' was given before"),
    ],
)
def test_spoilt_tables_are_refused(run, tmp_path, hyp, told):
    ref = written(tmp_path / "ref.trn", "hello there (u1)\n")
    status, _, err = run(ref, written(tmp_path / "h.csv", hyp))
    assert status == 2
    assert told in err


def test_links_that_lead_back_into_a_folder_are_followed_once(run, tmp_path):
    for side in ("ref", "hyp"):
        folder = tmp_path / side / "dr1"
        folder.mkdir(parents=True)
        (folder / "sa1.wrd").write_text("0 100 hello\n")
        (folder / "up").symlink_to("..")
        (folder / "upper").symlink_to("../dr1")
    out = run(tmp_path / "ref", tmp_path / "hyp")[1]
    assert "of 1 words; 1 utterance" in out


def test_what_has_no_end_is_refused(run, tmp_path):
    status, _, err = run(written(tmp_path / "r.txt", "a\n"), "/dev/zero")
    assert (status, "/dev/zero: is not a file" in err) == (2, True)


def test_a_cell_of_several_lines_is_text_of_several_words(run, tmp_path):
    (tmp_path / "ref.csv").write_text('id,text\nu1,"hello\nworld"\nu2,good morning\n')
    (tmp_path / "hyp.csv").write_text("id,text\nu2,good morning\nu1,hello word\n")
    status, out, _ = run(tmp_path / "ref.csv", tmp_path / "hyp.csv")
    assert status == 0
    assert "25.00 %" in out


@pytest.mark.parametrize(
    ("ref", "hyp", "told"),
    [
        ("u1,hello world\nu2,good day\n", "u1,hello world\nu2,good day\n", "CSV without a header"),
        ("ann yes please\nbo no\n", "bo no\nann yes\n", "the same first words in another order"),
    ],
)
def test_what_may_be_ids_is_not_guessed(run, tmp_path, ref, hyp, told):
    (tmp_path / "ref.txt").write_text(ref)
    (tmp_path / "hyp.txt").write_text(hyp)
    status, _, err = run(tmp_path / "ref.txt", tmp_path / "hyp.txt")
    assert status == 2
    assert told in err
    assert err.count("\n") == 1
