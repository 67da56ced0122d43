"""A build on two nodes, of which one is killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from cellular.bank import PhraseBank

ROOT = Path(__file__).parents[2]
PHRASES = 2_000
os.environ["RAY_AUTH_MODE"] = "disabled"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_a_build_survives_the_death_of_a_node(tmp_path: Path, cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=1)
    corpus, target = tmp_path / "corpus.txt", tmp_path / "bank"
    corpus.write_text("".join(f"Boat number {n} sails.\n" for n in range(PHRASES)))
    options = ["--target", target, "--teacher", "hash", "--shard-rows", "25", "--embedders", "2"]
    build = subprocess.Popen(
        [sys.executable, "-m", "jobs.build_phrase_bank", corpus, *options],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(target.glob(".build/*/embeddings/[0-9]*.arrow"))) < 10:
        assert build.poll() is None, build.communicate()
        time.sleep(0.005)
    assert not (target / "CURRENT").exists()
    cluster.remove_node(node, allow_graceful=False)  # SIGKILL

    _, error = build.communicate(timeout=120)
    assert build.returncode == 0, error
    bank = PhraseBank.open(target)
    assert sorted(bank.phrases(range(len(bank)))) == sorted(f"Boat number {n} sails." for n in range(PHRASES))
