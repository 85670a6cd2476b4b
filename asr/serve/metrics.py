"""Figures for Prometheus: requests, audio, queue and batches."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "asr_requests", "Answers", ["path", "model", "status"], registry=registry
        )
        self.latency = Histogram(
            "asr_request_seconds",
            "From a request's head to its answer's end",
            ["path", "model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.audio = Counter("asr_audio_seconds", "Audio recognised", ["model"], registry=registry)
        self.places = Gauge(
            "asr_requests_in_progress", "Requests that have a place", registry=registry
        )
        self.batch = Histogram(
            "asr_batch_windows",
            "Windows in a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.computing = Counter(
            "asr_computing_seconds", "Time in which batches compute", registry=registry
        )
        self.streams = Gauge("asr_live_streams", "Live sessions", registry=registry)
        self.lag = Histogram(
            "asr_live_lag_seconds",
            "Behind the speaker when audio of a live session is recognised",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.dropped = Counter(
            "asr_requests_dropped", "Requests whose client left", registry=registry
        )

    def computed(self, n_windows: int, took_s: float) -> None:
        """Note a batch."""
        self.batch.observe(n_windows)
        self.computing.inc(took_s)
