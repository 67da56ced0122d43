"""Where OpenTelemetry's spans go; Ray Serve makes them, of each request in each stage, when it is told to.

Off by default. On a cluster `tracing_config` in config.yaml names `serve.tracing:otlp`; for `cellular serve`
RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH does, with RAY_SERVE_TRACING_SAMPLING_RATIO (0.01 by default).
"""

from typing import TYPE_CHECKING

from cellular.errors import CellularError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


def otlp() -> list["SpanProcessor"]:
    """To the collector at OTEL_EXPORTER_OTLP_ENDPOINT (http://localhost:4318), in OTLP over HTTP.

    Raises:
        CellularError: the extra `tracing` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise CellularError("install what sends traces: pip install 'cellular[tracing]'") from error
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]
