"""What the server offers, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from asr import __version__
from asr.serve.contract import FORMATS, GRANULARITIES


def description(models: list[str]) -> dict[str, Any]:
    """The document at /openapi.json."""
    array = {"type": "array", "items": {"type": "string"}}
    fields = {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string", "enum": models},
        "language": {"type": "string"},
        "response_format": {"type": "string", "enum": list(FORMATS), "default": "json"},
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": list(GRANULARITIES)},
        },
        "keywords[]": array,
        "include[]": {"type": "array", "items": {"type": "string", "enum": ["logprobs"]}},
        "stream": {"type": "boolean", "default": False},
        "prompt": {"type": "string", "description": "accepted, without effect"},
        "temperature": {"type": "number", "description": "accepted, without effect"},
    }
    form = {"type": "object", "required": ["file", "model"], "properties": fields}
    ok = {"description": "OK"}
    error = {"$ref": "#/components/responses/Error"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Carousel", "version": __version__},
        "paths": {
            "/v1/audio/transcriptions": {
                "post": {
                    "summary": "Transcribe a file",
                    "requestBody": {"content": {"multipart/form-data": {"schema": form}}},
                    "responses": {
                        "200": ok,
                        "400": error,
                        "401": error,
                        "413": error,
                        "503": error,
                    },
                }
            },
            "/v1/models": {"get": {"summary": "List the models", "responses": {"200": ok}}},
            "/v1/models/{model}": {
                "get": {
                    "summary": "Describe a model",
                    "parameters": [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string"},
                        }
                    ],
                    "responses": {"200": ok, "404": error},
                }
            },
            "/health/live": {"get": {"summary": "The process answers", "responses": {"200": ok}}},
            "/health/ready": {
                "get": {"summary": "The models recognise", "responses": {"200": ok, "503": ok}}
            },
            "/metrics": {"get": {"summary": "Figures for Prometheus", "responses": {"200": ok}}},
        },
        "components": {
            "responses": {
                "Error": {
                    "description": "An error in OpenAI's shape",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {
                                    "error": {
                                        "type": "object",
                                        "properties": {
                                            "message": {"type": "string"},
                                            "type": {"type": "string"},
                                            "param": {"type": ["string", "null"]},
                                            "code": {"type": ["string", "null"]},
                                        },
                                    }
                                },
                            }
                        }
                    },
                }
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }
