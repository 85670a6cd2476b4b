"""What a reader of live recognition gets: on a terminal, as lines and as events."""

import itertools
import json
import os
import re
import select
import signal
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from live_parts import RATE, STEP, Stored, live_bundle, spoken

from asr.audio.live import Feed, Packet
from asr.decode.config import DecoderConfig
from asr.errors import InputError
from asr.labels import Labels
from asr.recognize import listening
from asr.recognize.listening import listen, reader
from asr.recognize.live import Stream
from asr.types import Transcript

LETTERS = Labels("char", ("<blank>", "<space>", *"abcdefgh"))
PAUSE = "_" * 20
TALK = "_ab~_cd" + PAUSE + "ef~gh~a"
TEXTS = ["ab cd", "ef gh a"]


def stream(text=TALK, chunk=1):
    symbols = Labels("char", ("<blank>", "~", *"abcdefgh"))
    log_probs = spoken(symbols, text, np.random.default_rng(0))
    bundle = live_bundle(LETTERS)
    return Stream(bundle, bundle.make_decoder(DecoderConfig()), Stored(log_probs, chunk))


def packets(n_frames=len(TALK), step=STEP):
    for _ in range(n_frames * STEP // step):
        yield Packet(np.zeros(step, np.float32), RATE)


class Stepwise:
    """A feed that gives one packet at a time, with so many seconds waiting behind it."""

    def __init__(self, given, waiting_s=0.0):
        self.given, self.waiting_s = iter(given), waiting_s

    def take(self, most_s):
        packet = next(self.given, None)
        return packet if packet is None else [packet]


def events(out):
    return [json.loads(line) for line in out.splitlines()]


def test_events(capsys):
    with reader(True, pytest.fail) as shown:
        listen(stream(), Stepwise(packets()), shown)
    found = events(capsys.readouterr().out)
    assert [e["text"] for e in found if e["event"] == "final"] == TEXTS
    assert [e["segment"] for e in found if e["event"] == "final"] == [0, 1]
    for name in ("audio_s", "clock_s"):
        times = [e[name] for e in found]
        assert times == sorted(times)
    assert all(e["lag_s"] == 0 for e in found)
    for number, text in enumerate(TEXTS):
        own = [e for e in found if e["segment"] == number]
        assert own[-1]["event"] == "final"
        committed = [e["text"] for e in own if e["event"] == "committed"]
        assert text.startswith(" ".join(t for t in committed if t))
        words = [w["label"] for e in own if e["event"] == "committed" for w in e["words"]]
        assert words == text.split()[: len(words)]
        said = ""
        for event in own[:-1]:
            said += f" {event['text']}" if event["event"] == "committed" else ""
            whole = f"{said} {event['text']}" if event["event"] == "partial" else said
            assert text.startswith(whole.strip())
    # A word is committed after the space behind it is heard.
    first = next(e for e in found if e["event"] == "committed")
    assert first["text"] == "ab"
    assert first["audio_s"] == pytest.approx(5 * 0.03)
    assert {"start_s", "end_s", "label", "confidence"} == first["words"][0].keys()


def test_lines(capsys):
    with reader(False, pytest.fail) as shown:
        listen(stream(), Stepwise(packets()), shown)
    assert capsys.readouterr().out.splitlines() == TEXTS


def test_who_is_behind_is_told(capsys, monkeypatch):
    told = []
    clock = itertools.count(0, 5)
    monkeypatch.setattr(listening.time, "perf_counter", lambda: next(clock))
    with reader(False, told.append) as shown:
        listen(stream(), Stepwise(packets(), waiting_s=3.25), shown)
    # Once, and not again before it has doubled.
    assert told == ["3.2 s behind: this machine is too slow, or too busy"]
    capsys.readouterr()
    with reader(True, pytest.fail) as shown:
        listen(stream(), Stepwise(packets(), waiting_s=3.25), shown)
    assert {e["lag_s"] for e in events(capsys.readouterr().out)} == {3.25}


class Terminal:
    """What is on a terminal of 40 columns: rows of (character, dim)."""

    def __init__(self, text):
        self.rows, self.row, self.column, self.dim = [{}], 0, 0, False
        for code, arguments, letter, character in re.findall(
            r"(\x1b\[(\?25[lh]|[0-9;]*)([A-Za-z]?))|([^\x1b])", text
        ):
            if code:
                self._control(arguments, letter)
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self.row += 1
                if self.row == len(self.rows):
                    self.rows.append({})
            else:
                self.rows[self.row][self.column] = character, self.dim
                self.column += 1

    def _control(self, arguments, letter):
        if letter == "m":
            self.dim = arguments == "2"
        elif letter == "A":
            self.row -= int(arguments or 1)
        elif letter == "K":
            assert arguments == "2"
            self.rows[self.row] = {}
        else:
            assert arguments.startswith("?25"), (arguments, letter)

    def lines(self, dim=None):
        wanted = [
            "".join(c if dim in (None, d) else " " for c, d in dict(sorted(row.items())).values())
            for row in self.rows
        ]
        return [line.rstrip() for line in wanted]


@contextmanager
def pseudo_terminal(monkeypatch):
    """A pseudo-terminal as standard output; gives a function: what has come on it so far."""
    master, slave = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = os.fdopen(slave, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    written = b""

    def shown():
        nonlocal written
        out.flush()
        while select.select([master], [], [], 0.0)[0]:
            written += os.read(master, 4096)
        return Terminal(written.decode())

    yield shown
    monkeypatch.undo()
    out.close()
    os.close(master)


def test_a_terminal(monkeypatch):
    seen = []
    with pseudo_terminal(monkeypatch) as terminal:

        def watched():
            for packet in packets():
                yield packet
                seen.append((terminal().lines(), terminal().lines(dim=True)))

        with reader(False, pytest.fail) as shown:
            listen(stream(), Stepwise(watched()), shown)
        # The prompt comes right below.
        assert terminal().lines()[: terminal().row + 1] == [*TEXTS, ""]
    whole = [line for lines, _ in seen for line in lines]
    # A segment's line grows and is drawn again in place; an endpoint ends it.
    assert {"a", "ab", "ab c", "ab cd", "ef", "ef gh a"} <= set(whole)
    assert max(len(lines) for lines, _ in seen) <= 3
    assert (["ab c"], ["   c"]) in seen
    assert (["ab"], [""]) in seen
    assert all(TEXTS[0] == lines[0] for lines, _ in seen if len(lines) > 1)
    assert all(dims[0].strip() == "" for lines, dims in seen if len(lines) > 1)


def test_a_terminal_shows_who_is_behind(monkeypatch):
    clock = itertools.count(0, 5)
    monkeypatch.setattr(listening.time, "perf_counter", lambda: next(clock))
    seen = []
    with pseudo_terminal(monkeypatch) as terminal:

        def watched():
            for packet in packets(8):
                yield packet
                seen.append(terminal().lines()[0])

        with reader(False, pytest.fail) as shown:
            listen(stream(), Stepwise(watched(), waiting_s=3.25), shown)
        assert terminal().lines()[: terminal().row + 1] == ["ab cd", ""]
    assert "ab c  [3.2 s behind]" in seen


def test_a_line_of_a_terminal_holds_no_controls(monkeypatch):
    said = Transcript("a", "x\x1b[2Jy", 1.0, 0.0, (), ())
    with pseudo_terminal(monkeypatch) as terminal:
        with reader(False, pytest.fail) as shown:
            shown.end(0, said, listening.Moment(0, 0, 0))
        assert terminal().lines()[0] == r"x\x1b[2Jy"


def test_audio_that_fails_leaves_what_was_heard(capsys):
    def failing():
        yield from packets(8)
        raise InputError("microphone: gone")

    with pytest.raises(InputError, match="gone"), reader(False, pytest.fail) as shown:
        listen(stream(), Feed(failing()), shown)
    assert capsys.readouterr().out == "ab cd\n"


def test_ctrl_c_ends_with_the_last_words(capsys):
    def interrupted():
        for n, packet in enumerate(packets()):
            if n == 8:
                os.kill(os.getpid(), signal.SIGINT)
            yield packet

    with reader(False, pytest.fail) as shown:
        listen(stream(), Stepwise(interrupted()), shown)
    # The packet that came with it is heard, too.
    assert capsys.readouterr().out == "ab cd\n"


def test_a_second_ctrl_c_ends_at_once(capsys, monkeypatch):
    clock = itertools.count(0, 5)
    monkeypatch.setattr(listening.time, "perf_counter", lambda: next(clock))

    class Stubborn(Stepwise):
        def take(self, most_s):
            os.kill(os.getpid(), signal.SIGINT)
            return super().take(most_s)

    with pytest.raises(KeyboardInterrupt), reader(False, pytest.fail) as shown:
        listen(stream(), Stubborn(packets(40)), shown)
