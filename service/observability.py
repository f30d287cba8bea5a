"""What an operator measures: Prometheus metrics, and where requests' time goes.

They hold nothing of a picture, a file's name, a face's id or a query string.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from model.runtime import available_threads
from service.load import current_work

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Stage(StrEnum):
    """Where a request's time goes."""

    IMAGE_DECODING = "image_decoding"
    PORTRAIT = "portrait"
    QUEUE = "queue"
    ENCODE = "encode"
    DECODE = "decode"
    COMPOSITE = "composite"
    IMAGE_ENCODING = "image_encoding"


class Metrics:
    """The service's metrics, in a registry of their own so that one process may hold several."""

    def __init__(self) -> None:
        self._processors = available_threads()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        model = ["model"]
        self.encoder_runs = self._counter("encoder_runs", "Runs of an identity encoder", model)
        self.decoder_runs = self._counter("decoder_runs", "Runs of a decoder", model)
        self.batch_pictures = self._histogram(
            "batch_pictures", "Pictures in one run of a graph", ["model", "graph"], PICTURES
        )
        self.padding_pictures = self._counter(
            "padding_pictures", "Pictures nobody asked for that filled a run", ["model", "graph"]
        )
        self.best_batch = self._gauge(
            "best_batch", "Pictures that a run takes at most", ["model", "graph"]
        )
        self.run_seconds = self._gauge(
            "run_seconds",
            "A run's time by its pictures, as measured at the start",
            ["model", "graph", "pictures"],
        )
        self.queue_pictures = self._gauge(
            "queue_pictures", "Pictures waiting for the accelerator", ["model", "graph"]
        )
        self.failed_pictures = self._counter(
            "failed_pictures", "Pictures on which a graph failed", ["model", "graph"]
        )
        self.dropped_pictures = self._counter(
            "dropped_pictures", "Pictures whose caller left before they ran", ["model", "graph"]
        )
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time by stage: one sample a picture, or a run", ["stage"], SECONDS
        )
        self.identity_lookups = self._counter(
            "identity_lookups", "Identities asked for, found in this process or not", ["found"]
        )
        self.faces_stored = self._counter("faces_stored", "Faces taken in")
        self.faces_evicted = self._counter("faces_evicted", "Faces dropped to make room")
        self.requests = self._counter(
            "requests", "Requests answered", ["method", "route", "status"]
        )
        self.request_seconds = self._histogram(
            "request_seconds", "Time from a request's headers to its last byte", ["route"], SECONDS
        )
        self.requests_in_progress = self._gauge(
            "requests_in_progress", "Requests for pictures in progress"
        )
        self.rejected_requests = self._counter(
            "rejected_requests",
            "Requests for pictures refused before their body was read",
            ["reason"],
        )
        self.problems = self._counter("problems", "Answers that were problems", ["code"])
        self.cancelled_requests = self._counter(
            "cancelled_requests", "Requests whose caller left before the answer's end"
        )
        self.model_info = self._gauge(
            "model_info", "Models served: always 1", ["model", "version", "digest", "provider"]
        )

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Records how long the block takes, and adds it to the request's work."""
        started, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            passed_s = time.perf_counter() - started
            self.stage_seconds.labels(stage).observe(passed_s)
            if (work := current_work()) is not None:
                machine_s = (time.thread_time() - processor) / self._processors
                work.add(stage, passed_s, machine_s)

    def _counter(self, name: str, about: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"anchorage_{name}", about, labels or [], registry=self.registry)

    def _gauge(self, name: str, about: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"anchorage_{name}", about, labels or [], registry=self.registry)

    def _histogram(
        self, name: str, about: str, labels: list[str], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(
            f"anchorage_{name}", about, labels, registry=self.registry, buckets=buckets
        )
