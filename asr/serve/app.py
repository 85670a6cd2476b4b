"""The routes of `asr serve`, and what every request passes on its way to them."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asr.audio.sources import Source
from asr.errors import InputError
from asr.recognize.recognizer import Recognizer
from asr.recognize.transcripts import formats_named, from_json
from asr.serve.contract import (
    ApiError,
    Asked,
    answer,
    asked,
    event,
    logprobs,
    segment_event,
    spoken,
    usage,
)
from asr.serve.decoding import decoded
from asr.serve.emissions import described, heard_frames, part_asked, samples_between
from asr.serve.engine import BusyError, Engine, Places, Work
from asr.serve.live_contract import Wanted
from asr.serve.metrics import Metrics
from asr.serve.openapi import description
from asr.serve.realtime import Session
from asr.types import Transcript

#: Parts of a form, and bytes of one that is no file.
MOST_FIELDS, MOST_FIELD = 1024, 16 << 10
#: All of a form but its file.
MOST_FORM = 1 << 20
#: A body must bring something within so many seconds, and so many bytes a second on the whole.
IDLE_S, LEAST_RATE = 20.0, 1024
#: So many where half of all places are taken.
CROWDED_RATE = 64 << 10
#: The first so many seconds of a body are not judged by its rate.
GRACE_S = 10.0
#: Bytes of a transcript that is written in another format: four hours have half of them.
MOST_TRANSCRIPT = 32 << 20
#: What a keyword is boosted by, in natural logarithms.
BOOST = 5.0
#: Variants of a model, one for each set of keywords, that are kept.
MOST_VARIANTS = 16
#: Readiness: a second of noise is recognised within so many seconds; not asked more often.
READY_S, READY_EVERY_S = 5.0, 2.0
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
#: The page's files; it asks nothing of any other host, and none may show it in a frame.
INDEX = "index.html"
PAGE = {
    INDEX: "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "view.js": "text/javascript",
    "timeline.js": "text/javascript",
    "microphone.js": "text/javascript",
    "live.js": "text/javascript",
    "recorder.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
FOLDER = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: What the log calls a request whose client left before its answer (nginx).
UNANSWERED = 499
#: What begins an answer.
HEADS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
#: What precedes a key among the protocols of a WebSocket.
KEY_PROTOCOL = "openai-insecure-api-key."
#: What paths begin with that end in any name.
NAMED = ("/v1/models/", "/format/")
#: What needs no key.
OPEN = {"/health/live", "/health/ready", "/openapi.json", "/", *(f"/{name}" for name in PAGE)}


@dataclass(frozen=True)
class Limits:
    """What a request may take. upload: bytes; audio_s: decoded seconds; requests, streams: at once,
    of files and of live audio."""

    upload: int = 512 << 20
    audio_s: float = 4 * 3600.0
    requests: int = 64
    streams: int = 128


@dataclass(frozen=True)
class Settings:
    """How a server is run. keys: any of them opens it; none: no key is asked for."""

    limits: Limits = Limits()
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    logs_text: bool = False


class Server:
    """Models, the engine that computes, and the routes."""

    def __init__(self, models: Mapping[str, Recognizer], settings: Settings = Settings()) -> None:
        self.models, self.settings = dict(models), settings
        self.metrics = Metrics()
        self.engine = Engine(self.metrics.computed)
        self.requests = Places(settings.limits.requests)
        self.streams = Places(settings.limits.streams)
        self.metrics.places.set_function(lambda: self.requests.n_taken)
        self.metrics.streams.set_function(lambda: self.streams.n_taken)
        self.begun = int(time.time())
        self.ready: tuple[float, bool] = (-READY_EVERY_S, False)
        self.checking, self.formatting, self.boosting = (asyncio.Lock() for _ in range(3))
        self.variant = lru_cache(MOST_VARIANTS)(self._variant)
        middleware = [Middleware(Guard, server=self)]
        if settings.origins:
            # Outermost: browsers ask without a key whether they may send one.
            middleware.insert(
                0,
                Middleware(
                    CORSMiddleware,
                    allow_origins=list(settings.origins),
                    allow_methods=["GET", "POST"],
                    allow_headers=["*"],
                    expose_headers=["x-request-id", "x-ignored-fields", "retry-after"],
                ),
            )
        self.app = Starlette(
            routes=[
                Route("/v1/audio/transcriptions", self.transcriptions, methods=["POST"]),
                Route("/v1/audio/emissions", self.emissions, methods=["POST"]),
                WebSocketRoute("/v1/realtime", self.realtime),
                WebSocketRoute("/{path:path}", self.no_socket),
                Route("/v1/realtime", self.no_files),
                Route("/v1/models", self.list_models),
                Route("/v1/models/{model:path}", self.one_model),
                Route("/health/live", self.live),
                Route("/health/ready", self.is_ready),
                Route("/metrics", self.figures),
                Route("/openapi.json", self.openapi),
                Route("/format/{name}", self.formatted, methods=["POST"]),
                Route("/", self.page),
                *(Route(f"/{name}", self.page) for name in PAGE if name != INDEX),
            ],
            middleware=middleware,
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                ClientDisconnect: _left,
            },
        )

    # --- transcription

    async def transcriptions(self, request: Request) -> Response:
        """POST /v1/audio/transcriptions."""
        leave = self.admitted(request)
        try:
            upload, fields = await self.form(request)
            wanted = asked(fields)
            request.state.model = self.known(wanted.model)
            recognizer, wanted = await self.for_keywords(wanted)
            segments: asyncio.Queue[Transcript] = asyncio.Queue()
            work = self.work(recognizer, *self.sound(recognizer, upload), segments)
        except BaseException:
            leave()
            raise
        work.done.add_done_callback(lambda _: leave())
        self.engine.submit(work)
        if wanted.stream:
            return StreamingResponse(
                self.events(work, segments, wanted),
                media_type="text/event-stream",
                headers={"cache-control": "no-store", **_ignored(wanted)},
            )
        transcript = await self.finished(work, request)
        self.metrics.audio.labels(wanted.model).inc(transcript.duration_s)
        if self.settings.logs_text:
            request.state.text = transcript.text
        body, media_type = answer(transcript, wanted, recognizer.bundle)
        return Response(body, media_type=media_type, headers=_ignored(wanted))

    async def emissions(self, request: Request) -> Response:
        """POST /v1/audio/emissions: what the net says about a stretch of a file."""
        leave = self.admitted(request)
        try:
            upload, fields = await self.form(request)
            part = part_asked(fields)
            request.state.model = self.known(part.model)
            recognizer = self.models[part.model]
            first, end = heard_frames(recognizer, part)
            step = round(recognizer.bundle.clock.shift_s * recognizer.bundle.features.sample_rate)
            source, blocks = self.sound(recognizer, upload)
            blocks = samples_between(blocks, first * step, end * step)
            work = Work(recognizer, source, blocks, keeps=True)
        except BaseException:
            leave()
            raise
        work.done.add_done_callback(lambda _: leave())
        self.engine.submit(work)
        labels = (await self.finished(work, request)).labels
        found = await asyncio.to_thread(described, recognizer.bundle, work.job, labels, part, first)
        return JSONResponse(found)

    def admitted(self, request: Request) -> Callable[[], None]:
        """Take a place for a request with a file; what is returned gives it back.

        Raises:
            ApiError: its body is too large, or there is none.
        """
        length = request.headers.get("content-length", "0")
        if length.isdigit():
            check_size(int(length), self.settings.limits.upload)
        return place(self.requests)

    def is_crowded(self) -> bool:
        """Whether half of all places are taken."""
        return 2 * self.requests.n_taken >= self.requests.most

    async def form(self, request: Request) -> tuple[UploadFile, list[tuple[str, str]]]:
        """Read a request's body: the file, on disk where it is large, and the other fields.

        Raises:
            ApiError: too large, no form with one file, or there is no room for it.
        """
        kind = request.headers.get("content-type", "").lower()
        if not kind.startswith("multipart/form-data"):
            raise ApiError(400, "expected a body of type multipart/form-data")
        try:
            form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD)
        except OSError as error:
            raise _no_room(error) from error
        items = form.multi_items()
        uploads = {name: value for name, value in items if isinstance(value, UploadFile)}
        if list(uploads) != ["file"]:
            raise ApiError(400, "expected one file, in the field 'file'", "file")
        return uploads["file"], [(n, value) for n, value in items if isinstance(value, str)]

    def known(self, model: str) -> str:
        """The name of a model, if it is one of those served.

        Raises:
            ApiError: it is not.
        """
        if model not in self.models:
            raise ApiError(
                404,
                f"The model '{model}' does not exist; served are {', '.join(self.models)}",
                "model",
                "model_not_found",
            )
        return model

    async def for_keywords(self, wanted: Asked) -> tuple[Recognizer, Asked]:
        """The recognizer for what is asked; keywords mean nothing to one that searches no words.

        Raises:
            ApiError: one of them cannot be listened for.
        """
        recognizer = self.models[wanted.model]
        if not wanted.keywords:
            return recognizer, wanted
        if not recognizer.decoder.searches_words:
            return recognizer, replace(wanted, ignored=(*wanted.ignored, "keywords"))
        try:
            # One at a time, so that those without keywords find a thread.
            async with self.boosting:
                made = await asyncio.to_thread(self.variant, wanted.model, wanted.keywords)
            return made, wanted
        except InputError as error:
            raise ApiError(400, str(error), "keywords") from error

    def _variant(self, model: str, keywords: tuple[str, ...]) -> Recognizer:
        return self.models[model].with_hotwords([f"{word}:{BOOST:g}" for word in keywords])

    def sound(
        self, recognizer: Recognizer, upload: UploadFile
    ) -> tuple[Source, Generator[np.ndarray, None, None]]:
        """An upload's name, and its sound at the model's rate, as much as may be."""
        # On disk, without a name: it is gone with the process, whatever ends that.
        try:
            upload.file.rollover()  # type: ignore[attr-defined]
        except OSError as error:
            raise _no_room(error) from error
        rate = recognizer.bundle.features.sample_rate
        name = _printable(upload.filename)
        blocks = _limited(upload.file, name, rate, self.settings.limits.audio_s)
        return Source(Path(name), name), blocks

    def work(
        self,
        recognizer: Recognizer,
        source: Source,
        blocks: Generator[np.ndarray, None, None],
        segments: asyncio.Queue[Transcript],
    ) -> Work:
        """A sound to recognise; segments are put into the queue as they are found."""
        loop = asyncio.get_running_loop()

        def found(segment: Transcript) -> None:
            # The loop is closed where the server has ended.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(segments.put_nowait, segment)

        return Work(recognizer, source, blocks, found)

    async def finished(self, work: Work, request: Request) -> Transcript:
        """The transcript; where the client leaves before, the work is dropped.

        Raises:
            ApiError: the file cannot be read.
            ClientDisconnect: the client has left.
        """
        done = asyncio.wrap_future(work.done)
        gone = asyncio.ensure_future(_gone(request))
        both: set[asyncio.Future[Any]] = {done, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                self.metrics.dropped.inc()
                raise ClientDisconnect
            return done.result()
        except InputError as error:
            raise ApiError(400, str(error), "file", "invalid_file") from error
        finally:
            gone.cancel()
            self.engine.drop(work)

    async def events(
        self, work: Work, segments: asyncio.Queue[Transcript], wanted: Asked
    ) -> AsyncIterator[bytes]:
        """Server-sent events: each segment's text as it is found; joined they are the text."""
        done = asyncio.wrap_future(work.done)
        told, number = "", 0
        try:
            while not (done.done() and segments.empty()):
                following = asyncio.ensure_future(segments.get())
                both: set[asyncio.Future[Any]] = {done, following}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    continue
                segment = following.result()
                if not segment.text:
                    continue
                delta = f" {segment.text}" if told else segment.text
                told += delta
                about = {"logprobs": logprobs(spoken(segment))} if wanted.logprobs else {}
                yield event("transcript.text.delta", delta=delta, **about)
                if wanted.response_format == "verbose_json" and "segment" in wanted.granularities:
                    yield event("transcript.text.segment", **segment_event(number, segment))
                    number += 1
            transcript = done.result()
            self.metrics.audio.labels(wanted.model).inc(transcript.duration_s)
            about = {"logprobs": logprobs(spoken(transcript))} if wanted.logprobs else {}
            yield event(
                "transcript.text.done",
                text=transcript.text,
                usage=usage(transcript.duration_s),
                **about,
            )
        except InputError as error:
            body = ApiError(400, str(error), "file", "invalid_file").body()
            yield f"event: error\ndata: {json.dumps(body)}\n\n".encode()
        finally:
            if not done.done():
                self.metrics.dropped.inc()
            self.engine.drop(work)

    # --- live

    async def realtime(self, socket: WebSocket) -> None:
        """WebSocket /v1/realtime."""
        try:
            leave = place(self.streams)
        except ApiError as error:
            await socket.send_denial_response(_answered(error))
            return
        try:
            keeps_text = self.settings.logs_text
            await Session(socket, self.engine, self.metrics, self.streaming, keeps_text).run()
        finally:
            leave()

    async def no_socket(self, socket: WebSocket) -> None:
        """A WebSocket anywhere else."""
        told = ApiError(404, f"Invalid URL: no WebSocket is at {socket.url.path}")
        await socket.send_denial_response(_answered(told))

    async def no_files(self, request: Request) -> Response:
        """GET /v1/realtime without a WebSocket."""
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        raise ApiError(426, "expected a WebSocket (ws:// or wss://)", headers=headers)

    async def streaming(self, wanted: Wanted) -> tuple[Recognizer, Wanted]:
        """The recognizer for a live session, and what it asks with the model's own name.

        Raises:
            ApiError: the model does not exist or cannot stream, or a keyword cannot be used.
        """
        streaming = [name for name, model in self.models.items() if model.bundle.streams]
        model = self.known(wanted.model) if wanted.model else next(iter(streaming), "")
        if model not in streaming:
            raise ApiError(
                400,
                f"The model '{model or next(iter(self.models))}' does not stream: it hears files "
                f"alone; those that do are {', '.join(streaming) or 'none'}",
                "model",
                "model_does_not_stream",
            )
        recognizer, asked = await self.for_keywords(Asked(model, keywords=wanted.keywords))
        ignored = (wanted.ignored - {"keywords"}).union(asked.ignored)
        return recognizer, replace(wanted, model=model, ignored=ignored)

    # --- models, health, figures

    def described(self, model: str) -> dict[str, object]:
        """A model as the API lists it."""
        return {
            "id": model,
            "object": "model",
            "created": self.begun,
            "owned_by": "carousel",
            "streams": self.models[model].bundle.streams,
        }

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self.described(m) for m in self.models]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        return JSONResponse(self.described(self.known(request.path_params["model"])))

    async def live(self, request: Request) -> Response:
        """GET /health/live: the process answers."""
        return JSONResponse({"status": "ok"})

    async def is_ready(self, request: Request) -> Response:
        """GET /health/ready: each model recognises a second of noise in time."""
        async with self.checking:
            at, is_ready = self.ready
            if time.monotonic() - at >= READY_EVERY_S:
                is_ready = await self.recognises_noise()
                self.ready = (time.monotonic(), is_ready)
        status = "ok" if is_ready else f"no answer within {READY_S:g} s"
        return JSONResponse({"status": status}, 200 if is_ready else 503)

    def submit_noise(self) -> list[Work]:
        """Let every model recognise a second of noise."""
        works = []
        for recognizer in self.models.values():
            rate = recognizer.bundle.features.sample_rate
            noise = 0.1 * np.random.default_rng(0).standard_normal(rate).astype(np.float32)
            work = Work(recognizer, Source(Path("noise"), "noise"), (n for n in [noise]))
            works.append(work)
            self.engine.submit(work)
        return works

    async def recognises_noise(self) -> bool:
        """Whether every model takes a second of noise on in time."""
        works = self.submit_noise()
        waiting = [asyncio.wrap_future(work.done) for work in works]
        _, late = await asyncio.wait(waiting, timeout=READY_S)
        for work in works:
            self.engine.drop(work)
        return not late and not any(future.exception() for future in waiting)

    async def figures(self, request: Request) -> Response:
        """GET /metrics, for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(description(list(self.models)))

    async def formatted(self, request: Request) -> Response:
        """POST /format/NAME: a transcript (JSON) in a format that `asr transcribe` writes."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_TRANSCRIPT:
                raise ApiError(413, f"the transcript is larger than {MOST_TRANSCRIPT} bytes")

        def written() -> str:
            (chosen,) = formats_named(request.path_params["name"]).values()
            return chosen.write(from_json(json.loads(body)))

        try:
            async with self.formatting:
                text = await asyncio.to_thread(written)
        except (InputError, ValueError, RecursionError) as error:
            raise ApiError(400, str(error)) from error
        return Response(text, media_type="text/plain; charset=utf-8")

    async def page(self, request: Request) -> Response:
        """GET /, and what it consists of."""
        name = request.url.path.removeprefix("/") or INDEX
        headers = {"content-security-policy": POLICY, "referrer-policy": "no-referrer"}
        return Response((FOLDER / name).read_bytes(), media_type=PAGE[name], headers=headers)


class Guard:
    """What every request passes: its id, the key, the pace of its body, the log and the figures."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        status = UNANSWERED

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] in HEADS:
                status = message.get("status", 101)
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        scope.setdefault("state", {})
        try:
            if (error := self._refusal(scope, headers)) is not None:
                await _answered(error)(scope, receive, sending)
            elif scope["type"] == "websocket":
                await self.app(scope, receive, sending)
            else:
                most = self.server.settings.limits.upload
                await self.app(scope, _paced(receive, most, self.server.is_crowded), sending)
        except Exception:
            # A fault of ours, which uvicorn logs; the client gets its answer in the API's shape.
            if scope["type"] == "http" and status == UNANSWERED:
                told = ApiError(500, "the server failed; its log says where", code="server_error")
                await _answered(told)(scope, receive, sending)
            raise
        finally:
            self._note(scope, request_id, status, time.perf_counter() - begun)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ApiError | None:
        """Why a request is not answered, if it is not."""
        settings = self.server.settings
        if scope["type"] == "websocket":
            # Browsers leave it to the server which pages may open one.
            origin = headers.get(b"origin", b"").decode("latin-1")
            own = headers.get(b"host", b"").decode("latin-1")
            admitted = origin in settings.origins or "*" in settings.origins
            if origin and not admitted and urlsplit(origin).netloc != own:
                return ApiError(403, "pages of other sites are not admitted", code="origin")
        if not settings.keys or scope["path"] in OPEN:
            return None
        found = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        # A browser can give a WebSocket no headers; this is how OpenAI's pages name a key.
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith(KEY_PROTOCOL):
                found = protocol.removeprefix(KEY_PROTOCOL).encode()
        # All are compared, each in the same time whatever the key.
        matches = [hmac.compare_digest(found, key.encode()) for key in settings.keys]
        if any(matches):
            return None
        message = "Incorrect API key provided; name one as 'Authorization: Bearer KEY'"
        return ApiError(401, message, code="invalid_api_key")

    def _note(self, scope: Scope, request_id: str, status: int, took_s: float) -> None:
        state, metrics = scope["state"], self.server.metrics
        path = scope["path"] if "endpoint" in scope else "other"
        for named in NAMED:
            if path.startswith(named):
                path = f"{named}NAME"
        model = state.get("model", "")
        metrics.requests.labels(path, model, str(status)).inc()
        if scope["type"] == "http":
            metrics.latency.labels(path, model).observe(took_s)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": request_id,
            "client": (scope.get("client") or ("", 0))[0],
            "method": scope.get("method", "GET"),
            "path": scope["path"][:256],
            "model": model,
            "status": status,
            "seconds": round(took_s, 4),
        }
        if "text" in state:
            line["text"] = state["text"]
        with suppress(OSError, ValueError):
            print(json.dumps(line), file=sys.stdout, flush=True)


def place(places: Places) -> Callable[[], None]:
    """Take one of the places; what is returned gives it back.

    Raises:
        ApiError: there is none.
    """
    try:
        return places.claim()
    except BusyError as error:
        headers = {"retry-after": str(error.retry_s)}
        raise ApiError(503, str(error), code="overloaded", headers=headers) from error


def check_size(n_bytes: int, upload: int) -> None:
    """Refuse a body that holds more than a file of ``upload`` bytes and what belongs to it.

    Raises:
        ApiError: it does.
    """
    if n_bytes > upload + MOST_FORM:
        raise ApiError(413, f"the request is larger than the {upload} bytes that a file may have")


def _paced(receive: Receive, upload: int, is_crowded: Callable[[], bool]) -> Receive:
    """Receive a body only from a client that keeps sending it, and up to its limit."""
    begun, n_bytes, is_over = time.monotonic(), 0, False

    async def paced() -> Message:
        nonlocal n_bytes, is_over
        if is_over:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), IDLE_S)
        except TimeoutError as error:
            raise ApiError(408, f"nothing came for {IDLE_S:g} s of the request's body") from error
        n_bytes += len(message.get("body", b""))
        check_size(n_bytes, upload)
        is_over = not message.get("more_body", False)
        seconds = time.monotonic() - begun
        least = CROWDED_RATE if is_crowded() else LEAST_RATE
        if not is_over and seconds > GRACE_S and n_bytes < least * seconds:
            raise ApiError(408, f"the request's body comes too slowly ({n_bytes} bytes so far)")
        return message

    return paced


async def _gone(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _limited(
    content: BinaryIO, name: str, rate: int, most_s: float
) -> Generator[np.ndarray, None, None]:
    """The blocks of a file, as many as one may be long."""
    n_samples = 0
    blocks = decoded(content, name, rate)
    try:
        for block in blocks:
            n_samples += len(block)
            if n_samples > most_s * rate:
                raise InputError(f"{name}: is longer than {most_s:g} s, the most that is taken")
            yield block
    finally:
        blocks.close()


def _no_room(error: OSError) -> ApiError:
    return ApiError(507, f"the file cannot be kept while it is read ({error.strerror or error})")


def _printable(name: str | None) -> str:
    """A file's name as messages show it: no folder, nothing that is not printed."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(c for c in last if c.isprintable())[:128] or "audio"


def _ignored(wanted: Asked) -> dict[str, str]:
    return {"x-ignored-fields": ", ".join(wanted.ignored)} if wanted.ignored else {}


def _answered(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, dict(error.headers or {}))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _answered(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"Invalid URL ({request.method} {request.url.path})",
        405: f"Not allowed to {request.method} on {request.url.path}",
    }
    told = ApiError(error.status_code, messages.get(error.status_code, error.detail))
    return JSONResponse(told.body(), error.status_code, dict(error.headers or {}))


async def _left(request: Request, error: Exception) -> Response:
    """Nobody reads this answer."""
    return Response(status_code=UNANSWERED)


def names_of(models: Iterable[str]) -> dict[str, str]:
    """The models that ``NAME=DIR`` or ``DIR`` name, by name; a folder's own where none is given.

    Raises:
        InputError: a name is given twice, or none can be made of a folder's.
    """
    found: dict[str, str] = {}
    for given in models:
        name, _, where = given.partition("=")
        if not where or "/" in name:
            name, where = "", given
        if not name:
            path = Path(where).resolve()
            # A run's model lies in its folder `model`; /model has no other name.
            name = (path.parent.name if path.name == "model" else "") or path.stem
        if name in found:
            raise InputError(f"--model {given}: another model is called {name!r}; use NAME=DIR")
        found[name] = where
    return found
