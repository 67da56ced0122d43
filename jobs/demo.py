"""`cellular demo`: from this machine's documentation to a bank, to text, over HTTP."""

import json
import os
import sys
import time
from http.client import HTTPConnection
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console

from cellular.errors import CellularError
from jobs.console import end_by_signals, run, show, wait_for_signals


def main(
    phrases: Annotated[int, typer.Option(min=300, help="Sentences to gather for the bank.")] = 13_000,
    teacher: Annotated[str, typer.Option(help="A name, a folder or a hub name.")] = "all-MiniLM-L6-v2",
    rows: Annotated[int, typer.Option(min=1, max=200, help="Sentences to decode and show.")] = 10,
    serve: Annotated[
        bool | None, typer.Option(help="Go on serving until Ctrl-C; by default if this is a terminal.")
    ] = None,
) -> None:
    """Build a phrase bank, decode sentences that it does not hold, in process and over HTTP."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    end_by_signals()
    from cellular.config import TeacherConfig
    from pipelines import demo
    from serve.app import running
    from serve.settings import ServeConfig

    log = Console(stderr=True).print
    report, held_out = demo.build(phrases, TeacherConfig(name=teacher))
    log(f"bank: {report.phrases:,} phrases in {report.path}, {report.embedded:,} embedded in this run")
    answers = demo.decode(report.path, held_out, TeacherConfig(name=teacher))
    log("starting the HTTP application")
    with running(ServeConfig(banks={"demo": {"folder": report.path}}, fused=True), port=0) as url:
        connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
        ask(connection, -answers[0].embedding)  # warms up
        replies = [ask(connection, answer.embedding) for answer in answers[:rows]]
        pairs = list(zip(answers, replies, strict=False))
        names = ("input", "decoded", "cosine", "ms", "ms by HTTP")
        lines = [(a.sentence, a.decoded, a.cosine, a.ms, ms) for a, (_, ms) in pairs]
        show([dict(zip(names, line, strict=True)) for line in lines])
        same = sum(a.decoded == text for a, (text, _) in pairs)
        log(f"{same} of {len(pairs)} answers are the same over HTTP")
        cosine = fmean(answer.cosine for answer in answers)
        log(f"mean cosine of {len(answers)} sentences not in the bank: {cosine:.3f}")
        if sys.stdout.isatty() if serve is None else serve:
            log(f"the application stays up: {url} and {url}/docs  (Ctrl-C stops)")
            wait_for_signals()
    log("everything that was started has stopped")


def ask(connection: HTTPConnection, embedding: Any) -> tuple[str, float]:
    """Decode one embedding over HTTP: the text, and the milliseconds of the whole call."""
    start = time.perf_counter()
    body = json.dumps({"embeddings": [embedding.tolist()]})
    connection.request("POST", "/v1/decode", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.load(response)
    if response.status != 200:
        raise CellularError(f"the HTTP application answers {response.status}: {answer['detail']}")
    return answer["results"][0]["text"], (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    run(main)
