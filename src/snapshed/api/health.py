"""Whether the service lives, whether it can work, and how it is doing, in numbers.

Nobody needs a token for these, so they tell nothing about anyone's snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from snapshed.auth import Res
from snapshed.resources import Resources
from snapshed.work import measure

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=PlainTextResponse)
@router.get("/health", response_class=PlainTextResponse, include_in_schema=False)
def alive() -> str:
    """The process answers."""
    return "OK"


@router.get("/readyz")
def ready(resources: Res) -> Response:
    """Database and store answer; 503 says which does not."""
    parts = {"database": resources.database.answers(), "store": resources.store.answers()}
    return JSONResponse(parts, 200 if all(parts.values()) else 503)


@router.get("/ready", include_in_schema=False)
def ready_for_objects(resources: Res) -> Response:
    """The same question as clients of the blob API ask it."""
    is_ready = resources.database.answers() and resources.store.answers()
    return PlainTextResponse("OK" if is_ready else "not ready", 200 if is_ready else 503)


class _Numbers(Collector):
    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def collect(self) -> Iterator[Metric]:
        for family in measure.measure(self._resources):
            labels = [family.label] if family.label else []
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(f"snapshed_{family.name}", family.help, labels=labels)
            for label, value in family.values.items():
                metric.add_metric([label] if labels else [], value)
            yield metric


@router.get("/metrics", response_class=PlainTextResponse)
@router.get("/keda", response_class=PlainTextResponse, include_in_schema=False)
def metrics(resources: Res) -> Response:
    """Queue depths, stock and open deletions, for Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Numbers(resources))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
