"""A server from start to end: a port, the models, requests, and the end when all are answered."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asr.errors import InputError
from asr.recognize.recognizer import Recognizer
from asr.serve.app import Server, Settings
from asr.serve.realtime import MOST_MESSAGE, RESTARTS

#: A connection must bring a request's whole head within so many seconds; after a signal, requests
#: that go on have so many to end.
HEAD_S, DRAIN_S = 15.0, 30
#: Connections that wait to be taken.
BACKLOG = 1024
#: A client of a WebSocket must read what it is sent within so many seconds, and may cut a message
#: into so many frames.
READ_S, MOST_FRAMES = 20.0, 4096


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, to clients that finish a request's head in time."""

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        super().connection_made(transport)
        self.late = self.loop.call_later(HEAD_S, transport.close)

    def on_headers_complete(self) -> None:
        self.late.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.late.cancel()
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


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any that is free.

    Raises:
        InputError: the address is not of this machine, or in use.
    """
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


def serve(models: Mapping[str, Recognizer], listening: socket.socket, settings: Settings) -> None:
    """Serve until a signal comes, and then until the requests that are there are answered."""
    config = uvicorn.Config(
        Server(models, settings).app,
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
