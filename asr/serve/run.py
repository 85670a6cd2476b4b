"""A server from start to end: a port, the models, requests, and the end when all are answered."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import threading
import time
from asyncio import TimerHandle
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asr.errors import InputError
from asr.recognize.files import Loading, load_for_files
from asr.recognize.recognizer import Recognizer
from asr.serve.app import Server, Settings
from asr.serve.realtime import MOST_MESSAGE, RESTARTS
from asr.system.memory import give_back_memory, share_memory

#: A connection must bring a request's whole head, of so many bytes, within so many seconds.
HEAD_S, MOST_HEAD = 15.0, 64 << 10
#: After a signal, requests that go on have so many seconds to end.
DRAIN_S = 30
#: Open files, where the system allows so many.
MOST_FILES = 1 << 14
#: Connections that wait to be taken.
BACKLOG = 1024
#: A client must read what it is sent within so many seconds; that of a WebSocket may cut a message
#: into so many frames.
READ_S, MOST_FRAMES = 20.0, 4096
#: Every request has threads of its own: so many arenas for all of them, and what they leave is
#: given back every so many seconds.
MOST_ARENAS, GIVE_BACK_S = 2, 30.0


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, to clients that finish what they begin, and read what they get.

    waiting: connections whose request's head is not there, the oldest first.
    """

    waiting: ClassVar[dict[Protocol, None]] = {}

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        super().connection_made(transport)
        self.late: TimerHandle | None = None
        self.unread: TimerHandle | None = None
        self.expect_head()
        if len(self.connections) > most_connections():
            next(iter(self.waiting)).transport.abort()

    def expect_head(self) -> None:
        """End the connection unless the head of a request is there in time."""
        self.waiting[self] = None
        self.n_head = 0
        self.end_later()

    def end_later(self) -> None:
        """End the connection soon, unless `go_on`."""
        self.go_on()
        self.late = self.loop.call_later(HEAD_S, self.transport.abort)

    def go_on(self) -> None:
        """What was waited for is there."""
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.n_head += len(data)
        if self in self.waiting and self.n_head > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The request's head is larger than {MOST_HEAD} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self not in self.waiting:
            self.expect_head()

    def on_headers_complete(self) -> None:
        self.waiting.pop(self, None)
        self.go_on()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The rest of a body that was refused is let in, so that the client reads why.
        if self.cycle.response_complete and self.cycle.more_body:
            self.end_later()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.go_on()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.loop.call_later(READ_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.unread is not None:
            self.unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        self.go_on()
        if self.unread is not None:
            self.unread.cancel()
        super().connection_lost(exc)


class LiveProtocol(WebSocketsSansIOProtocol):
    """WebSockets as uvicorn speaks them, to clients that read; a signal lets sessions end."""

    async def send(self, message: Any) -> None:
        try:
            await asyncio.wait_for(super().send(message), READ_S)
        except TimeoutError:
            self.transport.abort()
            raise ClientDisconnected from None

    def keepalive_timeout(self) -> None:
        # Closing would wait for what is not read.
        self.transport.abort()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) < MOST_FRAMES:
            super().handle_cont(event)
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTARTS})
        else:
            super().shutdown()


@cache
def most_connections() -> int:
    """Connections at once: each may open a file or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MOST_FILES:
        soft = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft // 2


def bound(host: str, port: int, to_all: bool) -> socket.socket:
    """A socket that listens; port 0 is any that is free.

    to_all: whether other machines may reach it.

    Raises:
        InputError: they would and may not, or the address is not of this machine, or in use.
    """
    if not to_all and not is_loopback(host):
        raise InputError(f"--host {host}: anybody could use the server: add --key-file, or --open")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Who reads the address below may come at once.
        listening.listen(BACKLOG)
    except OSError as error:
        raise InputError(
            f"{host}:{port}: cannot be listened at ({error.strerror or error}); choose another "
            "--port or --host"
        ) from error
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at ``host``."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def those_that_load(
    named: Mapping[str, str], device: str, threads: int | None, tell: Callable[[str], None]
) -> dict[str, Recognizer]:
    """The models by their names; one that cannot be used is told and left out.

    Raises:
        InputError: none can be used.
    """
    models = {}
    for name, where in named.items():
        try:
            models[name] = load_for_files(Loading(where, device=device, threads=threads), tell)
        except InputError as error:
            tell(f"model {name} is left out: {error}")
    if not models:
        raise InputError(f"none of the {len(named)} models can be used")
    return models


def _give_back() -> None:
    while True:
        time.sleep(GIVE_BACK_S)
        give_back_memory()


def serve(models: Mapping[str, Recognizer], listening: socket.socket, settings: Settings) -> None:
    """Serve until a signal comes, and then until the requests that are there are answered."""
    share_memory(MOST_ARENAS)
    threading.Thread(target=_give_back, name="memory", daemon=True).start()
    server = Server(models, settings)
    # So that the first client need not wait until compiled code is there.
    server.submit_noise()
    config = uvicorn.Config(
        server.app,
        http=Protocol,
        ws=LiveProtocol,
        ws_max_size=MOST_MESSAGE,
        # Speech does not shrink, and what does may be a bomb.
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"asr: serving {', '.join(models)} at http://{shown}:{port}", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listening])
