"""A build whose corpus lies on an S3-compatible store: the real command against a real server on loopback."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem

from cellular.bank import PhraseBank
from cellular.config import BuildConfig, CorpusConfig, ResourceConfig, TeacherConfig

LINES = [f"Boat number {number} sails at noon." for number in range(200)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an empty bucket, which no other test uses: the server keeps its state in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    system, path = FileSystem.from_uri("s3://boats?allow_bucket_creation=true")
    system.create_dir(path)
    yield "s3://boats"
    server.stop()


def test_the_bank_names_the_objects_that_its_phrases_came_from(
    bucket: str, tmp_path: Path, start_build: Callable[..., subprocess.Popen[str]]
) -> None:
    system, path = FileSystem.from_uri(bucket)
    for number, name in enumerate(("one.txt", "two.txt.gz")):
        with system.open_output_stream(f"{path}/texts/{name}", compression="detect") as stream:
            stream.write("\n".join(LINES[number::2]).encode())
    config = BuildConfig(
        corpus=CorpusConfig(inputs=(f"{bucket}/texts",)),
        target=tmp_path / "bank",
        teacher=TeacherConfig(name="hash"),
        resources=ResourceConfig(embedders=1),
    )
    _, error = (process := start_build(config)).communicate(timeout=120)
    assert process.returncode == 0, error
    bank = PhraseBank.open(config.target)
    records = bank.records(range(len(bank)))
    assert sorted(record.phrase for record in records) == sorted(LINES)
    assert {record.source for record in records} == {f"{bucket}/texts/one.txt", f"{bucket}/texts/two.txt.gz"}
