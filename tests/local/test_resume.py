"""A build that is killed, stopped or fails goes on where it was, and ends as if nothing had happened."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._private import state

from cellular.bank import PhraseBank, current_version
from cellular.bank.manifest import Manifest, read_manifest, version_folder
from cellular.config import BuildConfig, CorpusConfig, IndexConfig, PhraseRules, ResourceConfig, TeacherConfig
from cellular.errors import CellularError
from pipelines.build_phrase_bank import run
from pipelines.progress import Row, silent

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data's own
]
Start = Callable[..., subprocess.Popen[str]]
PHRASES = 1_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("".join(f"Boat number {number} sails.\n" for number in range(PHRASES)))
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, corpus: Path, cluster: str) -> Manifest:
    """The manifest of a build that nothing happened to."""
    target = tmp_path_factory.mktemp("uninterrupted") / "bank"
    run(configure(target, corpus), track=silent)
    return manifest(target)


def configure(target: Path, corpus: Path, embedders: int = 1, **settings: Any) -> BuildConfig:
    """With one embedder where a second, which takes seconds to start, makes no difference."""
    inputs = CorpusConfig(inputs=(str(corpus),))
    index = IndexConfig(factory="IVF16,Flat")
    return BuildConfig(
        corpus=inputs,
        target=target,
        teacher=TeacherConfig(name="hash"),
        index=index,
        shard_rows=20,
        resources=ResourceConfig(embedders=embedders),
        **settings,
    )


def manifest(target: Path) -> Manifest:
    return read_manifest(version_folder(target, current_version(target) or "none"))


def finished_shards(target: Path) -> dict[Path, int]:
    """The embedded shards on disk, and the inode of each: a new one means that it was written again."""
    return {path: path.stat().st_ino for path in target.glob(".build/*/embeddings/[0-9]*.arrow")}


def wait_for_shards(process: subprocess.Popen[str], target: Path, number: int) -> None:
    while len(finished_shards(target)) < number:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def stop_at(stage: str, after: int, error: type[BaseException]) -> Callable[..., Iterator[Row]]:
    """A track that raises once `after` items of a stage are done."""

    def track(rows: Iterable[Row], name: str, total: int, done: int, unit: str) -> Iterator[Row]:
        for number, row in enumerate(rows):
            if name == stage and number == after:
                raise error
            yield row

    return track


def test_killed_driver_resumes_without_embedding_a_finished_shard_twice(
    tmp_path: Path, corpus: Path, cluster: str, uninterrupted: Manifest, start_build: Start
) -> None:
    config = configure(tmp_path / "bank", corpus, embedders=2)
    process = start_build(config, address=cluster)
    wait_for_shards(process, config.target, 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert current_version(config.target) is None  # a half-written bank is never visible

    finished, seen = finished_shards(config.target), {}

    def remember(rows: Iterable[Row], stage: str, total: int, done: int, unit: str) -> Iterator[Row]:
        yield from rows
        seen.update(finished_shards(config.target))

    report = run(config, track=remember)
    assert finished.items() <= seen.items()
    assert report.embedded + report.resumed == PHRASES
    assert report.embedded > 0 and report.resumed > 0
    assert manifest(config.target).files == uninterrupted.files
    bank = PhraseBank.open(config.target)
    assert len(set(bank.phrases(range(len(bank))))) == PHRASES


def test_stopped_in_every_stage_and_with_other_resources_the_result_is_the_same(
    tmp_path: Path, corpus: Path, uninterrupted: Manifest
) -> None:
    config = configure(tmp_path / "bank", corpus)
    more = config.resources.model_copy(update={"embedders": 2, "embedder_cpus": 0.5})
    finished: dict[Path, int] = {}
    for stage, after, resources in (
        ("deduplicate", 0, config.resources),
        ("embed", 3, config.resources),
        ("index", 0, more),
    ):
        with pytest.raises(KeyboardInterrupt):
            run(
                config.model_copy(update={"resources": resources}),
                track=stop_at(stage, after, KeyboardInterrupt),
            )
        assert current_version(config.target) is None
        before, finished = finished, finished_shards(config.target)
        assert before.items() <= finished.items() and (len(before) < len(finished)) == (
            stage != "deduplicate"
        )
    report = run(config, track=silent)
    assert (report.embedded, report.resumed) == (0, PHRASES)
    assert manifest(config.target).files == uninterrupted.files


def test_a_signal_ends_a_build_with_a_word_and_its_code(
    tmp_path: Path, corpus: Path, cluster: str, start_build: Start
) -> None:
    """Twice: the second run does what the word says, and goes on."""
    config = configure(tmp_path / "bank", corpus)
    for number in (signal.SIGINT, signal.SIGTERM):
        finished = finished_shards(config.target)
        process = start_build(config, address=cluster)
        wait_for_shards(process, config.target, len(finished) + 1)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert error.endswith("stopped; run the same command to go on\n")
        assert "Traceback" not in error and "raylet" not in error
        assert finished.items() <= finished_shards(config.target).items()
    assert run(config, track=silent).phrases == PHRASES


def test_a_killed_worker_costs_nothing_but_time(
    tmp_path: Path, corpus: Path, uninterrupted: Manifest
) -> None:
    killed: list[int] = []

    def kill_embedder(rows: Iterable[Row], stage: str, total: int, done: int, unit: str) -> Iterator[Row]:
        for row in rows:
            if stage == "embed" and not killed:
                killed.append(embedder_processes()[0])
                os.kill(killed[0], signal.SIGKILL)
            yield row

    report = run(configure(tmp_path / "bank", corpus, embedders=2), track=kill_embedder)
    assert len(killed) == 1
    assert (report.embedded, report.resumed) == (PHRASES, 0)
    assert manifest(report.path).files == uninterrupted.files


def embedder_processes() -> list[int]:
    """The processes of the embedding actors that are alive."""
    actors = state.actors().values()
    return [a["Pid"] for a in actors if "ShardEmbedder" in a["ActorClassName"] and a["State"] == "ALIVE"]


def test_other_settings_or_inputs_are_refused_until_restarted(tmp_path: Path, corpus: Path) -> None:
    config = configure(tmp_path / "bank", corpus)
    with pytest.raises(KeyboardInterrupt):
        run(config, track=stop_at("embed", 3, KeyboardInterrupt))
    other = configure(tmp_path / "bank", corpus, rules=PhraseRules(max_characters=21))
    with pytest.raises(CellularError, match=r"other settings or inputs.*--restart"):
        run(other, track=silent)
    report = run(other, restart=True, track=silent)
    assert report.resumed == 0 and report.phrases < PHRASES


def test_a_published_bank_that_was_not_cleaned_up_after_is_not_published_twice(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path / "bank", corpus)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipelines.build_phrase_bank._report", lambda *_, **__: interrupt())
        run(config, track=silent)
    (config.target / "CURRENT").unlink()  # as if killed before the last step of publishing
    assert run(config, track=silent).version == "v000001"


def interrupt() -> None:
    raise KeyboardInterrupt
