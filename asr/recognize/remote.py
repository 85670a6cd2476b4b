"""Transcripts from a server (`asr serve`), as from a model of one's own."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from asr.audio.read import STDIN, standard_input
from asr.audio.sources import Source
from asr.errors import InputError
from asr.recognize.files import Loading
from asr.recognize.transcripts import from_json
from asr.system.ahead import made_by
from asr.types import Transcript

#: Files that are on their way at once; seconds of silence after which a server is given up, and
#: for how long one is asked again that has no place.
AT_ONCE, SILENT_S, BUSY_S = 8, 3600.0, 600.0
STRANGER = "what answers there is no asr serve"


def check_loading(url: str, loading: Loading, on_ray: bool) -> None:
    """See that nothing is asked of a server that is its own to choose.

    Raises:
        InputError: something is.
    """
    changed = [*loading.options.given, *["--engine ray"] * on_ray]
    if not changed and loading._replace(model="") != Loading(""):
        changed = ["what the net hears and computes on"]
    if changed:
        raise InputError(f"--server {url}: {changed[0]} is the server's to choose")


class RemoteRecognizer:
    """A model on a server."""

    def __init__(self, url: str, model: str | None = None, key: str | None = None) -> None:
        """model: as the server calls it; None for its only one.

        Raises:
            InputError: no such server or model, or it wants another key.
        """
        self.where = urlsplit(url)
        if self.where.scheme not in ("http", "https") or not self.where.hostname:
            raise InputError(f"--server {url}: expected an address such as http://localhost:8765")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            names = [each["id"] for each in self._asked("GET", "/v1/models", [])["data"]]
        except InputError as error:
            raise InputError(f"--server {url}: {error}") from error
        except (KeyError, TypeError) as error:
            raise InputError(f"--server {url}: {STRANGER}") from error
        if model is None and len(names) == 1:
            model = names[0]
        if model is None or model not in names:
            found = f"no model {model!r}" if model else f"{len(names)} models"
            raise InputError(f"--server {url}: has {found}; name --model {' or '.join(names)}")
        self.model: str = model

    def transcribe_files(
        self,
        sources: Iterable[Source],
        failed: Callable[[Source, InputError], None],
        heard: Callable[[float], None] = lambda seconds: None,
    ) -> Iterator[Transcript]:
        """Transcribe files in order; see `Recognizer.transcribe_files`."""
        pool = ThreadPoolExecutor(AT_ONCE)
        with closing(made_by(pool, self._transcribed, sources, 2 * AT_ONCE)) as found:
            for source, transcript in found:
                if isinstance(transcript, InputError):
                    failed(source, transcript)
                else:
                    heard(transcript.duration_s)
                    yield transcript

    def _transcribed(self, source: Source) -> tuple[Source, Transcript | InputError]:
        path = source.path
        if source.channel is not None or source.offset_s or source.duration_s is not None:
            error = f"{path}: a channel or a part of a file is for a model of one's own (--model)"
            return source, InputError(error)
        try:
            with standard_input() if path == STDIN else path.open("rb") as audio:
                found = from_json(self._upload(path, audio))
        except InputError as error:
            # The server begins with the name alone.
            told = str(error).removeprefix(f"{path.name}: ")
            return source, InputError(f"{path}: {told}")
        except OSError as error:
            return source, InputError(f"{path}: cannot be read ({error.strerror or error})")
        return source, replace(found, id=source.id, audio=path)

    def _upload(self, path: Path, audio: BinaryIO) -> Any:
        boundary = uuid.uuid4().hex
        field = f"--{boundary}\r\nContent-Disposition: form-data; name="
        # Its name is for the server's messages; any of its characters may be there.
        name = json.dumps(os.fsencode(path.name).decode(errors="replace"))
        head = (
            f'{field}"model"\r\n\r\n{self.model}\r\n'
            f'{field}"response_format"\r\n\r\ntranscript\r\n'
            f'{field}"file"; filename={name}\r\n\r\n'
        ).encode()
        parts: list[bytes | BinaryIO] = [head, audio, f"\r\n--{boundary}--\r\n".encode()]
        media_type = f"multipart/form-data; boundary={boundary}"
        return self._asked("POST", "/v1/audio/transcriptions", parts, media_type)

    def _asked(
        self, method: str, path: str, parts: list[bytes | BinaryIO], media_type: str = "text/plain"
    ) -> Any:
        """What the server answers, as JSON; asks again where it has no place.

        Raises:
            InputError: the server is not there, or answers with an error.
        """
        sizes = [len(p) if isinstance(p, bytes) else p.seek(0, os.SEEK_END) for p in parts]
        headers = self.headers | {"Content-Type": media_type, "Content-Length": str(sum(sizes))}
        begun = time.monotonic()
        while True:
            try:
                with closing(self._connection()) as connection:
                    connection.putrequest(method, self.where.path.rstrip("/") + path)
                    for name, value in headers.items():
                        connection.putheader(name, value)
                    connection.endheaders()
                    try:
                        for part in parts:
                            if not isinstance(part, bytes):
                                part.seek(0)
                            connection.send(part)
                    except (BrokenPipeError, ConnectionResetError):
                        # It says why before it has read all.
                        pass
                    answer = connection.getresponse()
                    body = answer.read()
                if answer.status == 503 and time.monotonic() - begun < BUSY_S:
                    time.sleep(float(answer.headers.get("retry-after", 1)))
                    continue
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "strerror", None) or error or type(error).__name__
                raise InputError(f"no answer from a server ({reason})") from error
            if answer.status == 401:
                raise InputError("the server wants a key that it knows; see --key-file")
            try:
                found = json.loads(body)
                told = None if answer.status == 200 else str(found["error"]["message"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{STRANGER} (status {answer.status})") from error
            if told is not None:
                raise InputError(told)
            return found

    def _connection(self) -> http.client.HTTPConnection:
        assert self.where.hostname
        if self.where.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self.where.hostname, self.where.port, timeout=SILENT_S, context=context
            )
        return http.client.HTTPConnection(self.where.hostname, self.where.port, timeout=SILENT_S)
