"""Every command and program of the README, run as it stands, on the Ray that RAY_ADDRESS names."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.bank import PhraseBank
from pipelines.demo_corpus import gather
from serve.app import running
from serve.settings import ServeConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(section: int, language: str) -> list[str]:
    """The code in one language of a numbered section."""
    (text,) = re.findall(rf"^## {section}\. .*?(?=^## )", README, re.DOTALL | re.MULTILINE)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


(BUILD,), (DECODE,), (CURL,), (TRAIN,) = (blocks(section, "sh") for section in (1, 2, 3, 5))
PROGRAM, PIPELINE = blocks(4, "python")
CLIENTS = blocks(3, "python")

pytestmark = [
    pytest.mark.teacher,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
]


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _address(cluster: str) -> Iterator[None]:
    """Each command would else start a Ray of its own, and end it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the README's first commands were run."""
    folder = tmp_path_factory.mktemp("readme")
    paragraphs, _ = gather(400, 0)
    texts = [" ".join(paragraph.sentences) for paragraph in paragraphs]
    (folder / "corpus").mkdir()
    (folder / "corpus" / "some.txt").write_text("\n".join(texts[1:]), encoding="utf-8")
    (folder / "more.jsonl").write_text(json.dumps({"text": texts[0]}), encoding="utf-8")
    run(["gzip", "more.jsonl"], folder)
    run(["bash", "-euo", "pipefail", "-c", BUILD], folder)
    return folder


def test_the_build_commands_leave_a_bank_of_two_versions(folder: Path) -> None:
    bank = PhraseBank.open(folder / "banks" / "mine")
    assert bank.version == "v000002"
    assert len(bank) >= 400


def test_the_program_prints_a_text_for_each_embedding_and_the_statistics(folder: Path) -> None:
    one, both, statistics = run([sys.executable, "-c", PROGRAM], folder).splitlines()
    assert one
    assert len(ast.literal_eval(both)) == 2
    assert "'cache'" in statistics


def test_the_named_pipeline_writes_a_text(folder: Path) -> None:
    assert run([sys.executable, "-c", PIPELINE], folder).strip()


def test_each_decoder_writes_both_texts(folder: Path) -> None:
    output = run(["bash", "-euo", "pipefail", "-c", DECODE], folder)
    assert output.count("ret ") >= 2


def test_a_trained_decoder_is_used_and_judged(folder: Path) -> None:
    (folder / "held").mkdir()
    for split, texts in (("train", ["A man sits."]), ("test", ["Two dogs run.", "A boy throws a ball."])):
        pq.write_table(pa.table({"text": texts}), folder / "held" / f"some_{split}.parquet")
    # A training of this length is not for tests.
    commands = TRAIN.replace("--steps 20000", "--steps 2 --batch-tokens 2048 --applications 1")
    output = run(["bash", "-euo", "pipefail", "-c", commands], folder)
    assert (folder / "evaluation" / "report.html").is_file()
    assert "BLEU" in output


def test_the_requests_are_answered_by_the_application(folder: Path, cluster: str) -> None:
    """The clients' programs too: each prints what it was answered."""
    config = ServeConfig.model_validate({"banks": [str(folder / "banks" / "mine")]})
    with running(config, port=0) as url:
        commands = CURL.replace(ADDRESS, url).replace("curl -s", "curl -sf -w '\\n'")
        output = run(["bash", "-euo", "pipefail", "-c", commands], folder)
        ours, openais = (run([sys.executable, "-c", one.replace(ADDRESS, url)], folder) for one in CLIENTS)
    decoded, written, embedded, ready = map(json.loads, output.splitlines())
    assert decoded["results"][0]["source"] == "bank"
    assert written["results"][0]["source"] == "ret"
    assert len(embedded["data"][0]["embedding"]) == 384
    assert ready["status"] == "ready"
    nearest, stream = ours.split("\n", 1)
    assert len(ast.literal_eval(nearest)) == 2
    assert stream.strip()
    assert openais == "384\n"
