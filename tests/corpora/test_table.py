"""Tables of utterances: Common Voice's, CSV, parquet and Lhotse's cuts, good and bad."""

import gzip
import io
import json

import numpy as np
import pyarrow
import pytest
import soundfile
from fuzzing import mutated, survives
from pyarrow import parquet
from running import asr

from asr.audio.read import load_audio
from asr.corpora import Own, load_corpus
from asr.corpora.own.rows import MOST_LINES
from asr.corpora.own.table import load_table
from asr.data.manifest import read_manifest
from asr.errors import InputError


def samples(seconds=1.0, seed=0):
    return np.random.default_rng(seed).integers(-999, 999, int(8000 * seconds)).astype(np.int16)


def sound(path, seconds=1.0, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples(seconds, seed), 8000)
    return path


def load(root, **how):
    return load_corpus("table", root, own=Own(**{"shares": (1.0,)} | how))


def only(corpus):
    (utterances,) = corpus.sets.values()
    return utterances


HEAD = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"


@pytest.fixture
def common_voice(tmp_path):
    """As Common Voice comes: quotes are text, clips lie in a folder of their own."""
    for name, speakers in (("train", "ab"), ("dev", "c"), ("test", "d"), ("other", "e")):
        rows = []
        for speaker in speakers:
            path = f"common_voice_{name}_{speaker}.flac"
            sound(tmp_path / "clips" / path)
            rows.append(f'{speaker * 9}\t{path}\t1\t"Ja", sagte {speaker} "laut\t2\n')
        (tmp_path / f"{name}.tsv").write_text(HEAD + "".join(rows))
    return tmp_path


def test_common_voice_as_it_comes(common_voice):
    corpus = load_corpus("table", common_voice)
    assert {name: len(us) for name, us in corpus.sets.items()} == {"train": 2, "dev": 1, "test": 1}
    utterance = corpus.sets["train"][0]
    assert (utterance.id, utterance.speaker, utterance.text, utterance.duration_s) == (
        ("common_voice_train_a", "a" * 9, '"Ja", sagte a "laut', 1.0)
    )
    assert "columns: 'path' audio, 'sentence' text, 'client_id' speaker" in corpus.audit.notes
    assert (corpus.audit.found, corpus.audit.used) == (4, 4)
    assert list(load_corpus("table", common_voice / "dev.tsv").sets) == ["dev"]


def test_named_columns(tmp_path):
    for number in range(6):
        sound(tmp_path / f"{number}.wav")
    rows = [f'{n}.wav;"Say ""{n}"",\nplease"; spk {n % 3} ;wrong' for n in range(6)]
    (tmp_path / "clips.csv").write_text("\ufefffile;said;who;text\n" + "\n".join(rows) + "\n")
    corpus = load_corpus(
        "table", tmp_path / "clips.csv", own=Own(audio="file", text="said", speaker="who")
    )
    assert {name: len({u.speaker for u in us}) for name, us in corpus.sets.items()} == {
        "train": 1,
        "dev": 1,
        "test": 1,
    }
    texts = {u.id: u.text for us in corpus.sets.values() for u in us}
    assert texts["3"] == 'Say "3", please'
    for how, message in (
        (
            {"text": "sentence"},
            "has no column 'sentence' (--text); its columns are file, said, who",
        ),
        ({"speaker": "x"}, "has no column 'x' (--speaker)"),
    ):
        with pytest.raises(InputError) as caught:
            load(tmp_path / "clips.csv", **how)
        assert message in str(caught.value)
    (tmp_path / "clips.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column 'audio_filepath or audio or path'"):
        load(tmp_path / "clips.csv")


def test_bad_rows_are_named_and_the_rest_goes_on(tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        sound(tmp_path / f"{name}.wav")
    lines = [
        "path,text,speaker",
        "a.wav,fine,ann",
        'b.wav,"never closed,ann',
        "c.wav,fine again,ann",
        "d.wav,too,many,cells",
        "nul\0.wav,text,ann",
        "d.wav,nul\0,ann",
        "d.wav,,ann",
        "a.wav,another text,ann",
        "c.wav,fine again,ann",
        "",
        "gone.wav,x,ann",
        'e.wav,"x" y,ann',
        "e.wav,last,ann",
        *[f"a.wav,,{n}" for n in range(MOST_LINES)],
    ]
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines) + "\n")
    corpus = load(path)
    assert [u.text for u in only(corpus)] == ["fine", "fine again", "last"]
    corrupt = {where.rpartition(":")[2]: reason for where, reason in corpus.audit.corrupt.items()}
    assert corrupt.pop("3").startswith("is not CSV")
    assert corrupt.pop("5") == "expected 3 cells, found 4"
    assert "names no file that could be" in corrupt.pop("6")
    assert "holds a control character" in corrupt.pop("7")
    assert corrupt.pop("8") == "holds no text"
    assert corrupt.pop("9") == f"its audio has another text at {path}:2"
    assert corrupt.pop("13").startswith("is not CSV")
    assert set(corrupt.values()) == {"holds no text"}
    assert corpus.audit.stray == {f"{path}:10": f"the same as {path}:4"}
    assert list(corpus.audit.missing) == [str(tmp_path / "gone.wav")]
    assert corpus.audit.used == 3


def test_sets_by_column_and_ids(tmp_path):
    for name in "abc":
        sound(tmp_path / f"{name}.wav")
    (tmp_path / "all.tsv").write_text(
        "id\taudio\ttext\tsplit\n1\ta.wav\tx\ttrain\n1\tb.wav\ty\tvalidation\n"
        "3 4\tc.wav\tz\tother\n"
    )
    corpus = load_corpus("table", tmp_path)
    assert {name: [(u.id, u.speaker) for u in us] for name, us in corpus.sets.items()} == {
        "train": [("1", "1")],
        "dev": [("dev-1", "dev-1")],
    }
    assert list(corpus.audit.dropped.values()) == [1]
    (tmp_path / "more.csv").touch()
    with pytest.raises(InputError, match=r"no table called train, dev or test; .*all\.tsv, m"):
        load_corpus("table", tmp_path)


def test_parquet_with_audio_inside(tmp_path, monkeypatch, capsys):
    def flac(seed):
        out = io.BytesIO()
        soundfile.write(out, samples(seed=seed), 8000, format="FLAC")
        return out.getvalue()

    sound(tmp_path / "data" / "beside.wav")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    audio = [{"bytes": flac(n), "path": f"u{n}.flac"} for n in range(3)]
    audio += [{"bytes": None, "path": "beside.wav"}, {"bytes": None, "path": None}, None]
    rows = {
        "audio": pyarrow.array(audio, kind),
        "text": ["one", "two", None, "four", "five", "six"],
        "speaker_id": [1, 2, 3, 4, 5, 6],
    }
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        table = pyarrow.table(rows).slice(0, 6 if name < "v" else 2)
        parquet.write_table(table, tmp_path / "data" / f"{name}.parquet")
    code, printed, err = asr(monkeypatch, capsys, "prepare", "table", tmp_path, tmp_path / "out")
    assert code == 0, err
    assert "5 of 8 utterances are in" in printed
    utterances = read_manifest(tmp_path / "out" / "train.jsonl")
    assert [(u.id, u.text, u.speaker) for u in utterances] == [
        ("u0", "one", "1"),
        ("u1", "two", "2"),
        ("beside", "four", "4"),
    ]
    heard = load_audio(utterances[1].audio, 8000)
    assert (heard == samples(seed=1) / np.float32(32768)).all()
    assert [u.id for u in read_manifest(tmp_path / "out" / "dev.jsonl")] == ["dev-u0", "dev-u1"]
    corrupt = json.loads((tmp_path / "out" / "audit.json").read_text())["corrupt"]
    assert {where.rpartition(" ")[2]: reason for where, reason in corrupt.items()} == {
        "3": "column 'text' is empty",
        "5": "column 'audio' holds neither a path nor bytes of audio",
        "6": "column 'audio' holds neither a path nor bytes of audio",
    }
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="is no parquet that can be read"):
        load(tmp_path, kept=tmp_path)


def cut(**changes):
    about = {
        "id": "c1",
        "start": 0.5,
        "duration": 1.0,
        "channel": 0,
        "type": "MonoCut",
        "supervisions": [
            {"id": "s1", "start": 0.1, "duration": 0.5, "text": "hello", "speaker": "ann"},
            {"id": "s2", "start": 0.7, "duration": 0.2, "text": "you", "speaker": "bob"},
        ],
        "recording": {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}]},
    }
    return json.dumps(about | changes)


def test_cuts_of_lhotse(tmp_path):
    sound(tmp_path / "r.wav", 2.0)
    command = {"sources": [{"type": "command", "channels": [0], "source": "sph2pipe r.sph |"}]}
    stereo = {"sources": [{"type": "file", "channels": [0, 1], "source": "r.wav"}]}
    lines = [
        cut(),
        cut(recording=command),
        cut(recording=stereo),
        cut(type="MixedCut"),
        cut(supervisions=[]),
        '{"audio_filepath": "a.wav"}',
        "not JSON",
        cut(start="soon"),
        cut(recording={"sources": []}),
    ]
    path = tmp_path / "cuts_train.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    corpus = load_corpus("table", path)
    assert [
        (u.id, u.audio, u.speaker, u.offset_s, u.duration_s, u.text) for u in corpus.sets["train"]
    ] == [
        ("s1", tmp_path / "r.wav", "ann", 0.6, 0.5, "hello"),
        ("s2", tmp_path / "r.wav", "bob", 1.2, 0.2, "you"),
    ]
    reasons = list(corpus.audit.corrupt.values())
    assert [where.rpartition(":")[2] for where in corpus.audit.corrupt] == list("23456789")
    for reason, part in zip(
        reasons,
        [
            "audio from a command is not fetched ('sph2pipe r.sph |')",
            "one channel of several",
            "is a MixedCut",
            "no supervision",
            "is no cut of Lhotse",
            "not JSON",
            "no cut as Lhotse",
            "no cut as Lhotse",
        ],
        strict=True,
    ):
        assert part in reason
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        load(path)


def test_spoilt_tables_are_read_or_refused(tmp_path):
    sound(tmp_path / "a.wav")
    sound(tmp_path / "r.wav", 2.0)
    csv = b'path,text,speaker\na.wav,"h\xc3\xa9, ""you""",ann\nr.wav,x,bob\n'
    seeds = {
        "u.csv": csv,
        "u.tsv": csv.replace(b",", b"\t"),
        "u.jsonl": f"{cut()}\n{cut(id='c2')}\n".encode(),
        "u.jsonl.gz": gzip.compress(cut().encode()),
    }
    table = io.BytesIO()
    parquet.write_table(pyarrow.table({"path": ["a.wav"], "text": ["x"]}), table)
    seeds["u.parquet"] = table.getvalue()
    for name, seed in seeds.items():
        path = tmp_path / name
        for data in [seed, *mutated([seed], n=100, seed=1)]:
            path.write_bytes(data)
            survives(lambda path=path: load_table(path, lambda items: items, Own(kept=tmp_path)))
        path.write_bytes(seed)
        assert survives(lambda path=path: load_table(path, lambda items: items, Own(kept=tmp_path)))


def test_what_is_no_table(tmp_path):
    (tmp_path / "a.xlsx").touch()
    for name, found in (("a.xlsx", "is no such table"), ("b", "no such file")):
        with pytest.raises(InputError, match=f"{found}.*; expected one of .csv, .tsv, .parquet"):
            load(tmp_path / name)


def test_options_of_another_kind_are_refused(tmp_path, monkeypatch, capsys):
    for kind, option in (("folder", "--audio"), ("table", "--tier"), ("timit", "--text")):
        code, _, err = asr(monkeypatch, capsys, "prepare", kind, tmp_path, tmp_path, option, "x")
        assert (code, err.count("\n")) == (2, 1)
        assert option in err
