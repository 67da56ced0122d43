"""What is counted; that Prometheus finds it is shown in tests/cluster."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from serve import metrics
from serve.gateway import OverloadedError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def recorded(monkeypatch):
    """Records of every metric by name and labels; a histogram's are its values, a counter's their sum."""
    records = {}

    def record(self, value, tags=None):
        key = (self.info["name"], *self._get_final_tags(tags).values())
        records.setdefault(key, []).append(value)

    monkeypatch.setattr("ray.util.metrics.Metric._record", record)
    return records


class Stage:
    """Answers with its rows, or fails with a row that is an error."""

    async def call(self, method, rows):
        return [await self._answer(row) for row in rows]

    async def ask(self, method):
        return method

    async def stream(self, method, rows):
        for row in rows:
            yield await self._answer(row)

    async def _answer(self, row):
        if isinstance(row, BaseException):
            raise row
        return row


def test_a_batch_is_counted_with_its_rows_and_where_its_texts_are_from(recorded):
    results = [
        SimpleNamespace(source=source, teacher_calls=calls) for source, calls in (("ret", 9), ("bank", 5))
    ]
    worker = metrics.WorkerMetrics("HybridDecoder")
    assert worker.measured(lambda rows, seed: results, ["a", "b"], 7) is results
    assert (
        recorded["cellular_rows", "HybridDecoder"] == recorded["cellular_batch_rows", "HybridDecoder"] == [2]
    )
    (seconds,) = recorded["cellular_batch_seconds", "HybridDecoder"]
    assert recorded["cellular_busy_seconds", "HybridDecoder"] == [seconds]
    assert recorded["cellular_answers", "HybridDecoder", "ret"] == [1]
    assert recorded["cellular_answers", "HybridDecoder", "bank"] == [1]
    assert recorded["cellular_teacher_calls", "HybridDecoder"] == [14]


def test_embeddings_have_no_sources(recorded):
    vectors = np.zeros((3, 4), np.float32)
    assert metrics.WorkerMetrics("Embedder").measured(lambda rows: vectors, ["a"] * 3) is vectors
    measures = {"rows", "busy_seconds", "batch_rows", "batch_seconds"}
    assert {name.removeprefix("cellular_") for name, _ in recorded} == measures


@pytest.mark.parametrize("error", [OverloadedError, asyncio.CancelledError])
async def test_a_request_counts_by_its_outcome_whether_it_is_a_stream_or_not(recorded, error):
    stage = metrics.MeasuredStage(Stage(), "RETDecoder")
    assert await stage.call("decode", ["a"]) == ["a"]
    assert [item async for item in stage.stream("stream", ["a", "b"])] == ["a", "b"]
    with pytest.raises(error):
        await stage.call("decode", [error()])
    with pytest.raises(error):
        _ = [item async for item in stage.stream("stream", ["a", error()])]
    assert recorded["cellular_requests", "RETDecoder", "ok"] == [1, 1]
    assert recorded["cellular_requests", "RETDecoder", error.__name__] == [1, 1]
    assert len(recorded["cellular_request_seconds", "RETDecoder"]) == 4


async def test_a_question_without_rows_is_no_request(recorded):
    assert await metrics.MeasuredStage(Stage(), "Embedder").ask("describe") == "describe"
    assert not recorded
