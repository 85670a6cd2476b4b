"""Many files to transcripts, with a recogniser that makes them up."""

from pathlib import Path

from asr.audio.sources import Source
from asr.errors import InputError
from asr.recognize.files import transcribe_into
from asr.recognize.transcripts import formats_named
from asr.types import Transcript


class Parrot:
    """Says the name of each file; what is named bad cannot be read."""

    def transcribe_files(self, sources, failed, heard):
        for source in sources:
            if source.id == "bad":
                failed(source, InputError(f"{source.path}: cannot be read"))
                continue
            heard(1.0)
            yield Transcript(source.id, source.id, 1.0, 0.0, (), (), audio=source.path)


def test_only_what_is_missing_is_transcribed(tmp_path):
    sources = [Source(Path(f"{name}.wav"), name) for name in ("a", "bad", "b")]
    loads, told, failures = [], [], []

    def load():
        loads.append(1)
        return Parrot()

    def transcribe(formats, redo=False):
        transcribe_into(
            tmp_path,
            sources,
            formats_named(formats),
            load,
            redo,
            told.append,
            lambda path, error: failures.append(str(error)),
        )

    transcribe("txt")
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", "b.txt"}
    assert (told, failures) == ([], ["bad.wav: cannot be read"])

    (tmp_path / "a.txt").write_text("mine\n")
    transcribe("txt,trn")
    assert (tmp_path / "a.txt").read_text() == "mine\n"
    assert (tmp_path / "b.trn").read_text() == "b (b)\n"
    assert told == []

    del sources[1]
    transcribe("txt,trn")
    assert told == ["2 of 2 transcripts are there (--redo replaces them)"]
    assert len(loads) == 2

    transcribe("txt", redo=True)
    assert (tmp_path / "a.txt").read_text() == "a\n"
