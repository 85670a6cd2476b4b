"""Live transcription over a WebSocket, as OpenAI's Realtime API has it.

A session hears one turn after another, each a stream of the engine: with voice activity detection a
turn goes on and has an item for each segment that the endpoint rules find, without it a turn is the
item that the client commits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio.live import Packet
from asr.errors import InputError
from asr.labels import SILENT
from asr.recognize.live import Part
from asr.recognize.recognizer import Recognizer
from asr.serve.contract import ApiError, logprobs, spoken, usage
from asr.serve.engine import Engine, Heard, Live
from asr.serve.live_contract import LOGPROBS, TENTATIVE, Wanted, fields_of, shown, updated
from asr.serve.metrics import Metrics
from asr.types import Segment, Transcript

#: Bytes of audio in one event, and of a message that has them (base64 takes four for three).
MOST_AUDIO = 15 << 20
MOST_MESSAGE = MOST_AUDIO // 3 * 4 + 1024
#: Seconds of audio that wait to be recognised, and events that wait to be sent, before a client is
#: read on.
MOST_WAITING_S, MOST_EVENTS = 10.0, 256
#: Seconds of a packet, into which a longer one is cut.
PACKET_S = 0.5
#: A client that says nothing for so many seconds has gone.
SILENT_S = 300.0
#: Reasons to close (RFC 6455 and its registry): what is asked cannot be had; nobody speaks; the
#: server ends.
REFUSED, IDLE, RESTARTS = 1008, 1000, 1012
#: Errors after which there is nothing to be said.
LAST_WORDS = ("model_does_not_stream",)
ITEM = "conversation.item.input_audio_transcription"
BUFFER = "input_audio_buffer"


class Turn:
    """Audio from its beginning to its end: one stream, and the item that goes on.

    base_s: seconds of the session's audio before it. splits: whether segments are items. given_s,
    known_s: seconds of audio that came, and that are recognised.
    """

    def __init__(self, wanted: Wanted, base_s: float) -> None:
        self.model, self.base_s = wanted.model, base_s
        self.splits = wanted.turns is not None
        self.prefix_ms = 0 if wanted.turns is None else wanted.turns.prefix_ms
        self.live: Live | None = None
        self.given_s = self.known_s = 0.0
        self.over = asyncio.Event()
        self.next_item()

    def next_item(self) -> None:
        """Begin another item, which gets its name where it is first mentioned."""
        self.item = ""
        self.parts: list[Transcript] = []
        self.told, self.n_told, self.tentative = "", 0, ""


class Session:
    """One connection from its beginning to its end.

    recognizer: gives a model that streams, and what is wanted with its name and what it ignores; it
    raises `ApiError`.
    """

    numbers = itertools.count()

    def __init__(
        self,
        socket: WebSocket,
        engine: Engine,
        metrics: Metrics,
        recognizer: Callable[[Wanted], Awaitable[tuple[Recognizer, Wanted]]],
        keeps_text: bool,
    ) -> None:
        self.socket, self.engine, self.metrics = socket, engine, metrics
        self.recognizer_of = recognizer
        self.loop = asyncio.get_running_loop()
        self.id = f"sess_{uuid.uuid4().hex}"
        self.wanted = Wanted()
        self.recognizer: Recognizer | None = None
        self.outgoing: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.room = asyncio.Event()
        self.room.set()
        self.turn: Turn | None = None
        self.turns: list[Turn] = []
        #: Seconds of audio given, and when its first second began.
        self.given_s, self.begun = 0.0, 0.0
        self.last_item: str | None = None
        self.keeps_text = keeps_text

    async def run(self) -> None:
        """Serve the client until it leaves, or the server ends."""
        offered = self.socket.scope.get("subprotocols", ())
        await self.socket.accept("realtime" if "realtime" in offered else None)
        reading = asyncio.ensure_future(self._read())
        writing = asyncio.ensure_future(self._write())
        both: set[asyncio.Future[Any]] = {reading, writing}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and (code := reading.result()) is not None:
                self.outgoing.put_nowait(None)
                await writing
                await self.socket.close(code)
            elif writing.done():
                writing.result()
        except WebSocketDisconnect:
            pass
        finally:
            for task in both:
                task.cancel()
            for turn in self.turns:
                self._forget(turn)

    # --- what comes

    async def _read(self) -> int | None:
        """Do what the client says; returns why to close, None where it has left."""
        try:
            query = self.socket.query_params
            if query.get("intent") != "transcription":
                raise ApiError(
                    400, "only transcription is served here: add ?intent=transcription", "intent"
                )
            await self._use(Wanted(model=query.get("model", "")))
        except ApiError as error:
            self._wrong(error)
            return REFUSED
        self._say("session.created", session=shown(self.wanted, self.id))
        while True:
            self._regulate()
            await self.room.wait()
            try:
                message = await asyncio.wait_for(self.socket.receive(), SILENT_S)
            except TimeoutError:
                told = f"nothing came for {SILENT_S:g} s"
                self._wrong(ApiError(408, told, code="session_expired"))
                return IDLE
            if message["type"] == "websocket.disconnect":
                if message.get("code") != RESTARTS:
                    return None
                await self._end()
                return RESTARTS
            if not await self._obey(message.get("text")):
                return REFUSED

    async def _obey(self, text: str | None) -> bool:
        """Take a client's event; whether the session goes on."""
        event_id = None
        try:
            if text is None:
                raise ApiError(400, "expected an event as text, found a binary message")
            try:
                event = orjson.loads(text)
            except ValueError as error:
                raise ApiError(400, f"expected an event as JSON ({error})") from error
            if not isinstance(event, dict):
                raise ApiError(400, "expected an event as a JSON object")
            given = event.get("event_id")
            event_id = given if isinstance(given, str) else None
            await self._do(event)
        except ApiError as error:
            self._wrong(error, event_id)
            return error.code not in LAST_WORDS
        return True

    async def _do(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == f"{BUFFER}.append":
            self._append(fields_of(event, "", ("type", "event_id", "audio")).get("audio"))
        elif kind == f"{BUFFER}.commit":
            self._commit()
        elif kind == f"{BUFFER}.clear":
            if self.turn is not None:
                self._forget(self.turn)
            self._say(f"{BUFFER}.cleared")
        elif kind == "session.update":
            await self._use(updated(self.wanted, event.get("session")))
            self._say("session.updated", session=shown(self.wanted, self.id))
        else:
            raise ApiError(
                400,
                f"type: expected session.update, or append, commit or clear of {BUFFER}, "
                f"found {str(kind)[:64]!r}",
                "type",
                "invalid_value",
            )

    async def _use(self, wanted: Wanted) -> None:
        """Go on as ``wanted``; a turn that was begun otherwise is over."""
        is_same = (wanted.model, wanted.keywords) == (self.wanted.model, self.wanted.keywords)
        if self.recognizer is None or not is_same:
            self.recognizer, wanted = await self.recognizer_of(wanted)
        before, self.wanted = self.wanted, wanted
        self.socket.state.model = wanted.model
        if before.hearing != wanted.hearing and self.turn is not None:
            self._commit()

    def _append(self, audio: object) -> None:
        if not isinstance(audio, str):
            raise ApiError(400, "audio: expected base64 text", "audio")
        try:
            data = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, f"audio: is not base64 ({error})", "audio") from error
        if len(data) > MOST_AUDIO:
            raise ApiError(400, f"audio: has more than {MOST_AUDIO} bytes", "audio")
        samples, rate = self.wanted.format.samples(data)
        if not len(samples):
            return
        turn = self.turn or self._begun()
        assert turn.live is not None
        seconds = len(samples) / rate
        self.begun = self.begun or time.perf_counter() - seconds
        turn.given_s += seconds
        self.given_s += seconds
        for packet in np.array_split(samples, math.ceil(seconds / PACKET_S)):
            self.engine.hear(turn.live, Packet(packet, rate))

    def _begun(self) -> Turn:
        """A new turn."""
        assert self.recognizer is not None
        wanted = self.wanted
        turn = Turn(wanted, self.given_s)
        stream = self.recognizer.stream(endpoint=wanted.endpoint)

        def told(heard: Heard) -> None:
            # The loop is closed where the server has ended.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._heard, turn, heard)

        turn.live = Live(stream, told)
        self.turn = turn
        self.turns.append(turn)
        return turn

    def _commit(self) -> None:
        """End the turn: what is left of it is one item."""
        turn = self.turn
        if turn is None:
            raise ApiError(
                400,
                "Error committing input audio buffer: the buffer is empty.",
                code="input_audio_buffer_commit_empty",
            )
        assert turn.live is not None
        self._committed(turn)
        turn.splits = False
        self.engine.hear(turn.live, None)
        self.turn = None

    async def _end(self) -> None:
        """Recognise all that has come."""
        if self.turn is not None:
            self._commit()
        await asyncio.gather(*(turn.over.wait() for turn in self.turns))

    def _forget(self, turn: Turn) -> None:
        """Drop what is left of a turn."""
        assert turn.live is not None
        self.engine.forget(turn.live)
        self._over(turn)

    def _over(self, turn: Turn) -> None:
        turn.over.set()
        if turn is self.turn:
            self.turn = None
        self.turns = [other for other in self.turns if other is not turn]
        self._regulate()

    def _regulate(self) -> None:
        """Read on where not too much waits."""
        waiting_s = sum(turn.given_s - turn.known_s for turn in self.turns)
        if waiting_s < MOST_WAITING_S and self.outgoing.qsize() < MOST_EVENTS:
            self.room.set()
        else:
            self.room.clear()

    # --- what is found

    def _heard(self, turn: Turn, heard: Heard) -> None:
        """Tell what a turn has brought."""
        if turn.over.is_set():
            return
        self.metrics.audio.labels(turn.model).inc(heard.audio_s - turn.known_s)
        turn.known_s = heard.audio_s
        if heard.error is not None:
            self._failed(turn, heard.error)
            return
        for final in heard.finals:
            self._notice(turn, final.labels)
            turn.parts.append(final)
            if turn.splits:
                self._stopped(turn, final)
                self._completed(turn, final.duration_s)
        if heard.ended:
            self._completed(turn, turn.given_s)
            self._over(turn)
        elif heard.result is not None:
            committed, tentative = heard.result.committed, heard.result.tentative
            self._notice(turn, (*committed.labels, *tentative.labels))
            is_new = self._grow(turn, (*turn.parts, committed))
            if TENTATIVE in self.wanted.include and (is_new or tentative.text != turn.tentative):
                turn.tentative = tentative.text
                self._say(
                    "carousel.input_audio_transcription.tentative",
                    item_id=self._item(turn),
                    text=tentative.text,
                    audio_ms=round(1000 * (turn.base_s + heard.audio_s)),
                )
        now = time.perf_counter()
        # What comes faster than one speaks waits, but is not late.
        lag_s = min(now - heard.came, now - self.begun - turn.base_s - heard.audio_s)
        self.metrics.lag.labels(turn.model).observe(max(0.0, lag_s))
        self._regulate()

    def _item(self, turn: Turn) -> str:
        if not turn.item:
            turn.item = f"item_{uuid.uuid4().hex[:24]}"
        return turn.item

    def _notice(self, turn: Turn, labels: Sequence[Segment]) -> None:
        """Tell that one speaks, where that is new."""
        starts = (label.start_s for label in labels if label.label not in SILENT)
        start_s = next(starts, None)
        if start_s is None or turn.item or not turn.splits:
            return
        start_ms = max(0, round(1000 * (turn.base_s + start_s)) - turn.prefix_ms)
        self._say(f"{BUFFER}.speech_started", audio_start_ms=start_ms, item_id=self._item(turn))

    def _stopped(self, turn: Turn, final: Transcript) -> None:
        """Tell that one has spoken."""
        end_s = turn.base_s + turn.known_s
        self._say(
            f"{BUFFER}.speech_stopped", audio_end_ms=round(1000 * end_s), item_id=self._item(turn)
        )
        self._committed(turn)

    def _committed(self, turn: Turn) -> None:
        item = self._item(turn)
        self._say(f"{BUFFER}.committed", item_id=item, previous_item_id=self.last_item)
        self.last_item = item

    def _grow(self, turn: Turn, parts: Sequence[Transcript | Part]) -> bool:
        """Tell what is new of an item's text, if anything is."""
        text = " ".join(part.text for part in parts if part.text)
        delta = text[len(turn.told) :]
        if not delta:
            return False
        about: dict[str, Any] = {}
        if LOGPROBS in self.wanted.include:
            said = [word for part in parts for word in spoken(part)]
            about["logprobs"] = logprobs(said)[turn.n_told :]
            turn.n_told = len(said)
        self._say(f"{ITEM}.delta", item_id=self._item(turn), content_index=0, delta=delta, **about)
        turn.told = text
        return True

    def _completed(self, turn: Turn, duration_s: float) -> None:
        """End an item."""
        self._grow(turn, turn.parts)
        about: dict[str, Any] = {}
        if LOGPROBS in self.wanted.include:
            about["logprobs"] = logprobs([word for part in turn.parts for word in spoken(part)])
        self._say(
            f"{ITEM}.completed",
            item_id=turn.item,
            content_index=0,
            transcript=turn.told,
            usage=usage(duration_s),
            **about,
        )
        if self.keeps_text:
            state = self.socket.state
            state.text = f"{getattr(state, 'text', '')} {turn.told}".strip()
        turn.next_item()

    def _failed(self, turn: Turn, error: Exception) -> None:
        """Tell that a turn cannot be recognised; another one may."""
        message = str(error) if isinstance(error, InputError) else "the audio was not recognised"
        told = ApiError(500, message, code="transcription_failed").body()["error"]
        self._say(f"{ITEM}.failed", item_id=self._item(turn), content_index=0, error=told)
        self._over(turn)

    # --- what goes out

    def _say(self, kind: str, **fields: Any) -> None:
        event_id = f"event_{next(self.numbers)}"
        self.outgoing.put_nowait({"type": kind, "event_id": event_id, **fields})

    def _wrong(self, error: ApiError, event_id: str | None = None) -> None:
        """Tell a mistake of the client's."""
        self._say("error", error=error.body()["error"] | {"event_id": event_id})

    async def _write(self) -> None:
        """Send what is to be told, up to None."""
        while (event := await self.outgoing.get()) is not None:
            await self.socket.send_text(orjson.dumps(event).decode())
            self._regulate()
