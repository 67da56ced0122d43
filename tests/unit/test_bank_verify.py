from pydoc_data.topics import topics

import numpy as np
import pytest

from cellular.bank import PhraseBank, create_bank, verify_bank
from cellular.bank.manifest import Manifest, seal
from cellular.bank.writer import write_embeddings
from cellular.config import IndexConfig
from cellular.teachers import HashTeacher

TEACHER = HashTeacher(128)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sentences():
    """Real text: the sentences of Python's own documentation."""
    text = " ".join(" ".join(topics.values()).split())
    return sorted({sentence for sentence in text.split(". ") if 20 < len(sentence) < 300})[:2000]


@pytest.fixture
def bank(tmp_path):
    phrases = [f"phrase number {number}" for number in range(300)]
    create_bank(tmp_path, phrases, TEACHER, index=IndexConfig(factory="IVF8,SQ8"))
    return tmp_path


@pytest.mark.parametrize(
    "factory", ["Flat", "HNSW32", "IVF16,Flat", "IVF16,SQ8", "IVF16,PQ32x4fs", "IVF16,RaBitQ"]
)
def test_recall_on_real_text_reaches_097_at_the_default_effort(tmp_path, sentences, factory):
    create_bank(tmp_path, sentences, TEACHER, index=IndexConfig(factory=factory))
    report = verify_bank(tmp_path)
    assert report.ok and report.phrases == len(sentences) and report.index == factory
    assert report.recall_at_10 >= 0.97 and report.recall_at_1 >= 0.97
    assert report.sample == 1000


def test_unseen_text_is_found_as_well_as_calibration_promised(tmp_path, sentences):
    stored, unseen = sentences[::2], sentences[1::2]
    create_bank(tmp_path, stored, TEACHER, index=IndexConfig(factory="IVF16,PQ32x4fs"))
    bank = PhraseBank.open(tmp_path)
    queries = TEACHER.encode(unseen[:500])
    exact, found = bank.exact_search(queries), bank.search(queries)
    assert np.mean(found.scores >= exact.scores[:, -1:] - 1e-5) > bank.manifest.index.recall - 0.02


@pytest.mark.parametrize("name", ["index.faiss", "embeddings.arrow", "phrases.arrow", "sources.parquet"])
@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_damage_is_reported_with_the_files_name_not_raised(bank, name, damage):
    path = bank / "versions" / "v000001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "short" else content)
    report = verify_bank(bank)
    assert not report.ok and name in report.problems[0] and len(report.problems) == 1


def test_every_damaged_file_is_reported(bank):
    for name in ("index.faiss", "phrases.arrow"):
        (bank / "versions" / "v000001" / name).write_bytes(b"")
    assert len(verify_bank(bank).problems) == 2


def reseal(bank, **changes):
    """Change a published version and its checksums with it: damage that no checksum can show."""
    folder = bank / "versions" / "v000001"
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    seal(folder, manifest.model_copy(update=changes))


def test_counts_that_do_not_add_up_are_reported(bank):
    reseal(bank, occurrences=7)
    assert verify_bank(bank).problems == ("counts add up to 300, the manifest says 7",)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_an_embedding_that_is_not_of_unit_length_is_reported(bank, value):
    matrix = np.array(PhraseBank.open(bank).matrix)
    matrix[123] *= value
    write_embeddings(bank / "versions" / "v000001" / "embeddings.arrow", [matrix], 128)
    reseal(bank)
    assert verify_bank(bank).problems == ("embedding 123 is not of unit length",)


def test_a_folder_that_is_no_bank_is_reported(tmp_path):
    assert "make one with" in verify_bank(tmp_path).problems[0]


@pytest.mark.parametrize("phrases", [["only one"], ["one", "two"]])
@pytest.mark.parametrize("factory", ["auto", "HNSW32"])
def test_the_smallest_banks_verify(tmp_path, phrases, factory):
    create_bank(tmp_path, phrases, TEACHER, index=IndexConfig(factory=factory))
    report = verify_bank(tmp_path)
    assert report.ok and report.recall_at_10 == 1
