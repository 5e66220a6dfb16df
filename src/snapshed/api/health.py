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


class _Gauges(Collector):
    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def collect(self) -> Iterator[Metric]:
        numbers = measure.measure(self._resources)
        for name, (help_text, value) in numbers.gauges.items():
            yield GaugeMetricFamily(f"snapshed_{name}", help_text, value=value)
        objects = GaugeMetricFamily("snapshed_objects", "Live objects by kind.", labels=["kind"])
        sizes = GaugeMetricFamily("snapshed_bytes", "Bytes of live objects by kind.", labels=["kind"])
        for stock in numbers.stock:
            objects.add_metric([stock.kind], stock.objects)
            sizes.add_metric([stock.kind], stock.bytes)
        yield objects
        yield sizes
        failing = GaugeMetricFamily(
            "snapshed_tombstones_failing_by_class",
            "Condemned objects the store does not remove, by class.",
            labels=["class"],
        )
        failures = CounterMetricFamily(
            "snapshed_removal_failures", "Removals the store did not grant, by class.", labels=["class"]
        )
        for name in measure.CLASSES:
            failing.add_metric([name], numbers.failing[name])
            failures.add_metric([name], numbers.failures[name])
        yield failing
        yield failures
        yield CounterMetricFamily("snapshed_removals", "Objects removed and confirmed.", value=numbers.removed)
        yield CounterMetricFamily("snapshed_removed_bytes", "Bytes of these.", value=numbers.bytes_removed)


@router.get("/metrics", response_class=PlainTextResponse)
@router.get("/keda", response_class=PlainTextResponse, include_in_schema=False)
def metrics(resources: Res) -> Response:
    """Queue depths, stock and open deletions, for Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Gauges(resources))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
