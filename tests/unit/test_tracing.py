"""Traces reach a collector."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace import TracerProvider

from serve.tracing import otlp


@pytest.fixture
def collector():
    """An OTLP collector's address, and the bodies that it gets."""
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_spans_are_sent_to_the_collector_that_the_environment_names(collector, monkeypatch):
    address, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    provider = TracerProvider()
    for processor in otlp():
        provider.add_span_processor(processor)
    with provider.get_tracer("test").start_as_current_span("decode of two rows"):
        pass
    provider.shutdown()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert b"decode of two rows" in body
