"""What the server offers, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from asr import __version__
from asr.serve.contract import FORMATS, GRANULARITIES
from asr.serve.emissions import MOST_S

TEXT: dict[str, Any] = {"type": "string"}
OK = {"description": "OK"}
ERROR = {"$ref": "#/components/responses/Error"}
MESSAGE = {
    "message": TEXT,
    "type": TEXT,
    "param": {"type": ["string", "null"]},
    "code": {"type": ["string", "null"]},
}
#: What GET answers with a model's name, with health or with figures.
PLAIN = {
    "/v1/models": "List the models",
    "/v1/realtime": "Live transcription: a WebSocket with the events of OpenAI's Realtime API",
    "/health/live": "The process answers",
    "/health/ready": "The models recognise",
    "/metrics": "Figures for Prometheus",
}


def description(models: list[str]) -> dict[str, Any]:
    """The document at /openapi.json."""
    paths: dict[str, Any] = {
        path: {"get": {"summary": summary, "responses": {"200": OK}}}
        for path, summary in PLAIN.items()
    }
    name = {"name": "model", "in": "path", "required": True, "schema": TEXT}
    paths["/v1/models/{model}"] = {
        "get": {
            "summary": "Describe a model",
            "parameters": [name],
            "responses": {"200": OK, "404": ERROR},
        }
    }
    statuses = ("400", "401", "404", "408", "413", "503")
    form = {"multipart/form-data": {"schema": transcription(models)}}
    paths["/v1/audio/transcriptions"] = {
        "post": {
            "summary": "Transcribe a file",
            "requestBody": {"content": form},
            "responses": {"200": OK, **dict.fromkeys(statuses, ERROR)},
        }
    }
    paths["/v1/audio/emissions"] = {
        "post": {
            "summary": "What the net says about a stretch of a file",
            "requestBody": {"content": {"multipart/form-data": {"schema": stretch(models)}}},
            "responses": {"200": EMISSIONS, **dict.fromkeys(statuses, ERROR)},
        }
    }
    name = {"name": "name", "in": "path", "required": True, "schema": TEXT}
    paths["/format/{name}"] = {
        "post": {
            "summary": "Write a transcript in another format of asr transcribe",
            "parameters": [name],
            "requestBody": {"content": {"application/json": {"schema": _object({})}}},
            "responses": {"200": OK, **dict.fromkeys(("400", "401", "413"), ERROR)},
        }
    }
    error = _object({"error": _object(MESSAGE)})
    shown = {"description": "As OpenAI's", "content": {"application/json": {"schema": error}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Carousel", "version": __version__},
        "paths": paths,
        "components": {
            "responses": {"Error": shown},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def transcription(models: list[str]) -> dict[str, Any]:
    """The form of a transcription."""
    fields = {
        "file": TEXT | {"format": "binary"},
        "model": TEXT | {"enum": models},
        "language": TEXT,
        "response_format": TEXT | {"enum": list(FORMATS), "default": "json"},
        "timestamp_granularities[]": _list(TEXT | {"enum": list(GRANULARITIES)}),
        "keywords[]": _list(TEXT),
        "include[]": _list(TEXT | {"enum": ["logprobs"]}),
        "stream": {"type": "boolean", "default": False},
        "prompt": TEXT | {"description": "accepted, without effect"},
        "temperature": {"type": "number", "description": "accepted, without effect"},
    }
    return _object(fields) | {"required": ["file", "model"]}


def stretch(models: list[str]) -> dict[str, Any]:
    """The form of a stretch."""
    seconds = {"type": "number", "minimum": 0}
    fields = {
        "file": TEXT | {"format": "binary"},
        "model": TEXT | {"enum": models},
        "start": seconds | {"default": 0},
        "end": seconds | {"description": f"at most {MOST_S:g} s after start, its default"},
    }
    return _object(fields) | {"required": ["file", "model"]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


NUMBER = {"type": "number"}
SEGMENT = {"label": TEXT, "start_s": NUMBER, "end_s": NUMBER, "confidence": NUMBER}
LOG_PROBS = "frames x labels natural logarithms, float32 (little-endian), row by row, as base64"
EMISSIONS = {
    "description": "OK",
    "content": {
        "application/json": {
            "schema": _object(
                {
                    "object": TEXT,
                    "model": TEXT,
                    "unit": TEXT,
                    "labels": _list(TEXT),
                    "first_s": NUMBER | {"description": "centre of the first frame"},
                    "shift_s": NUMBER | {"description": "from a frame to the next"},
                    "frames": {"type": "integer"},
                    "log_probs": TEXT | {"description": LOG_PROBS},
                    "found": _list(_object(SEGMENT)),
                }
            )
        }
    },
}
