"""The page for Prometheus: counts and gauges, nothing that names a person or a schedule, hence without login."""

from django.http import HttpRequest, HttpResponse
from django_prometheus.exports import ExportToDjangoView

from delivery.metrics import page
from schedules import clock


def metrics(request: HttpRequest) -> HttpResponse:
    """What this web server counts of its requests (all its processes, with ``PROMETHEUS_MULTIPROC_DIR``), then ours."""
    response: HttpResponse = ExportToDjangoView(request)
    response.write(page(now=clock.now))
    return response
