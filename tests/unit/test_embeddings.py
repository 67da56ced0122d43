import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellular.embeddings import EmbeddingLoader
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.types import FloatArray

TEXTS = [f"sentence number {number} of many" for number in range(300)]


class CountingTeacher(HashTeacher):
    """Remembers what it was asked."""

    def __init__(self, name: str = "hash", precision: str = "fp32") -> None:
        super().__init__()
        self.fingerprint = f"{name}:0"
        self.precision = precision
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> FloatArray:
        self.asked += texts
        return super().encode(texts)


def test_cached_vectors_are_the_teachers_bit_for_bit(tmp_path: Path) -> None:
    loader = EmbeddingLoader("hash", tmp_path)
    expected = HashTeacher().encode(TEXTS)
    assert loader.encode(TEXTS).tobytes() == expected.tobytes()
    assert loader.encode(TEXTS).tobytes() == expected.tobytes()
    assert loader.statistics == (300, 300)


def test_cache_outlives_the_loader(tmp_path: Path) -> None:
    with EmbeddingLoader("hash", tmp_path) as loader:
        loader.encode(TEXTS)
    teacher = CountingTeacher()
    teacher.fingerprint = HashTeacher().fingerprint
    EmbeddingLoader(teacher, tmp_path).encode(TEXTS)
    assert teacher.asked == []


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=20))
def test_order_is_kept_and_equal_texts_are_embedded_once(texts: list[str]) -> None:
    teacher = CountingTeacher()
    vectors = EmbeddingLoader(teacher).encode(texts)
    assert len(teacher.asked) == len(set(texts))
    assert vectors.tobytes() == HashTeacher().encode(texts).tobytes()


def test_another_teacher_or_precision_never_gets_this_ones_vectors(tmp_path: Path) -> None:
    EmbeddingLoader(CountingTeacher("one"), tmp_path).encode(TEXTS)
    for other in (CountingTeacher("two"), CountingTeacher("one", precision="bf16")):
        EmbeddingLoader(other, tmp_path).encode(TEXTS)
        assert other.asked == TEXTS


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loader = EmbeddingLoader("hash")
    loader.encode(TEXTS)
    loader.encode(TEXTS)
    assert loader.statistics == (0, 600)
    assert list(tmp_path.iterdir()) == []


def test_the_file_stays_within_its_bound_and_recent_texts_stay_cached(tmp_path: Path) -> None:
    bound = 1 << 21
    loader = EmbeddingLoader("hash", tmp_path, bound)
    for block in range(20):  # 20 * 300 KB
        loader.encode([f"{block} {text}" for text in TEXTS])
        loader.encode(TEXTS[:20])
        assert (tmp_path / "data.mdb").stat().st_size <= bound
    assert loader.statistics == (
        19 * 20,
        20 * 300 + 20,
    )  # in every block the 20 that are always used were hits


def test_a_damaged_entry_is_embedded_again(tmp_path: Path) -> None:
    with EmbeddingLoader("hash", tmp_path) as loader:
        expected = loader.encode(TEXTS[:1])
    file = tmp_path / "data.mdb"
    content = file.read_bytes()
    assert content.count(expected.tobytes()) >= 1
    file.write_bytes(content.replace(expected.tobytes(), np.zeros_like(expected).tobytes()))
    loader = EmbeddingLoader("hash", tmp_path)
    assert loader.encode(TEXTS[:1]).tobytes() == expected.tobytes()
    assert loader.statistics == (0, 1)


@pytest.mark.parametrize("damage", [lambda content: b"not a database" * 1000, lambda content: content[:9000]])
def test_a_damaged_file_is_named(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    with EmbeddingLoader("hash", tmp_path) as loader:
        loader.encode(TEXTS)
    file = tmp_path / "data.mdb"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CellularError, match=f"{tmp_path} is damaged .* delete that folder"):
        EmbeddingLoader("hash", tmp_path).encode(TEXTS)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CellularError, match="choose another folder"):
        EmbeddingLoader("hash", tmp_path / "file").encode(["a"])


WRITER = """
import itertools, sys
from cellular.embeddings import EmbeddingLoader
loader = EmbeddingLoader("hash", sys.argv[1])
for number in itertools.count():
    loader.encode([f"{number} {part}" for part in range(50)])
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_cache(tmp_path: Path) -> None:
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            finished = [int(writer.stdout.readline()) for _ in range(5)][-1]
            writer.send_signal(signal.SIGKILL)
    teacher = HashTeacher()
    texts = [f"{number} {part}" for number in range(finished + 1) for part in range(50)]
    loader = EmbeddingLoader(teacher, tmp_path)
    assert loader.encode(texts).tobytes() == teacher.encode(texts).tobytes()
    assert loader.statistics == (len(texts), 0)
    loader.encode(["a new text"])
    loader.encode(["a new text"])
    assert loader.statistics == (len(texts) + 1, 1)


def _encode(loader: EmbeddingLoader, texts: list[str]) -> bytes:
    return loader.encode(texts).tobytes()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_share_a_cache(tmp_path: Path) -> None:
    loader = EmbeddingLoader("hash", tmp_path)
    loader.encode(TEXTS[:50])
    expected = HashTeacher().encode(TEXTS).tobytes()
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        assert set(pool.map(_encode, [loader] * 4, [TEXTS] * 4)) == {expected}
    assert loader.encode(TEXTS).tobytes() == expected
    assert loader.statistics == (300, 50)


def test_threads_and_loaders_share_a_cache(tmp_path: Path) -> None:
    loaders = [EmbeddingLoader("hash", tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(_encode, loaders, [TEXTS] * 4))
    assert results == {HashTeacher().encode(TEXTS).tobytes()}


def test_a_child_of_fork_opens_the_cache_anew(tmp_path: Path) -> None:
    loader = EmbeddingLoader("hash", tmp_path)
    loader.encode(TEXTS)
    child = os.fork()
    if child == 0:
        loader.encode(TEXTS)
        os._exit(0 if loader.statistics == (300, 300) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_loader_travels_without_its_cache_handle(tmp_path: Path) -> None:
    loader = EmbeddingLoader("hash", tmp_path)
    loader.encode(TEXTS)
    copy = cloudpickle.loads(cloudpickle.dumps(loader))
    copy.encode(TEXTS)
    assert copy.statistics == (300, 0)
    assert (copy.name, copy.dimension, copy.fingerprint) == (
        loader.name,
        loader.dimension,
        loader.fingerprint,
    )


def test_bad_input_is_named(tmp_path: Path) -> None:
    loader = EmbeddingLoader("hash", tmp_path)
    assert loader.encode([]).shape == (0, 256)
    with pytest.raises(ValueError, match="pass \\[text\\]"):
        loader.encode("one string")
    with pytest.raises(ValueError, match="texts\\[1\\] is int"):
        loader.encode(["a", 2])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="cache_bytes"):
        EmbeddingLoader("hash", tmp_path, 10)
