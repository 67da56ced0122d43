import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.bank import PhraseBank, current_version
from cellular.config import BuildConfig, CorpusConfig, IndexConfig, PhraseRules, ResourceConfig, TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from pipelines import stages
from pipelines.build_phrase_bank import BuildReport, run
from pipelines.progress import silent

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data's own
]
HASH = TeacherConfig(name="hash")
Occurrence = tuple[str, str, int, int]  # phrase, file name, row, position
Mixed = tuple[BuildReport, list[Occurrence]]


def document(number: int) -> list[str]:
    """Sentences, of which the first is in many documents and the last in one."""
    return [
        f"The owl number {number % 7} sleeps.",
        f"A dog waits at gate {number % 50}.",
        f"Boat {number} left.",
    ]


def configure(target: Path, *inputs: Path, **settings: object) -> BuildConfig:
    corpus = CorpusConfig(inputs=tuple(str(path) for path in inputs))
    common = {"corpus": corpus, "target": target, "teacher": HASH, "resources": ResourceConfig(embedders=1)}
    return BuildConfig.model_validate(common | settings)


def build(target: Path, *inputs: Path, **settings: object) -> BuildReport:
    return run(configure(target, *inputs, **settings), track=silent)


def write_lines(path: Path, numbers: range) -> Path:
    path.write_text("".join(" ".join(document(number)) + "\n" for number in numbers))
    return path


def contents(bank: PhraseBank) -> dict[str, tuple[int, str, int, int]]:
    """Count and first occurrence of each phrase."""
    records = bank.records(range(len(bank)))
    assert len({record.phrase for record in records}) == len(records)
    return {r.phrase: (r.count, Path(r.source).name, r.row, r.position) for r in records}


def expected(occurrences: list[Occurrence]) -> dict[str, tuple[int, str, int, int]]:
    """The same from a list of all occurrences, in plain Python."""
    counts = Counter(phrase for phrase, *_ in occurrences)
    first = {phrase: where for phrase, *where in sorted(occurrences, key=lambda o: o[1:], reverse=True)}
    return {phrase: (counts[phrase], *first[phrase]) for phrase in counts}


# Each writes documents to a file, with rows that hold none, and returns the row of each document.
def write_parquet(path: Path, texts: list[str]) -> list[int]:
    column = pa.array([text.encode() for text in texts] + [b"\xff broken"], pa.binary())
    pq.write_table(
        pa.table({"text": pa.Array.from_buffers(pa.string(), len(column), column.buffers())}), path
    )
    return list(range(len(texts)))


def write_jsonl(path: Path, texts: list[str]) -> list[int]:
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    return compress(path, [*lines, '{"text": null}\n', "not json\n"])[: len(texts)]


def write_csv(path: Path, texts: list[str]) -> list[int]:
    file = io.StringIO()
    csv.writer(file).writerows([["id", "text"], *enumerate(texts), [0, "NUL \0 byte"]])
    path.write_text(file.getvalue())
    return list(range(len(texts)))


def write_text(path: Path, texts: list[str]) -> list[int]:
    return compress(path, [text + "\n" for text in texts])


def compress(path: Path, lines: list[str]) -> list[int]:
    """Write lines, compressed as the name says; where each starts."""
    data = "".join(lines).encode()
    codec = {".gz": gzip.compress, ".zst": lambda plain: pa.compress(plain, "zstd", asbytes=True)}
    path.write_bytes(codec.get(path.suffix, bytes)(data))
    return [int(start) for start in np.cumsum([0, *(len(line.encode()) for line in lines[:-1])])]


FILES = {
    "a.parquet": write_parquet,
    "b.jsonl": write_jsonl,
    "c.jsonl.gz": write_jsonl,
    "d.csv": write_csv,
    "e.txt": write_text,
    "f.txt.zst": write_text,
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, cluster: str) -> Iterator[Mixed]:
    """A bank of every format, built by several shards, and all occurrences of phrases in its corpus."""
    folder, target = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("bank")
    occurrences: list[Occurrence] = []
    for number, (name, write) in enumerate(FILES.items()):
        documents = [document(n) for n in range(number * 40, number * 40 + 60)]
        rows = write(folder / name, [" ".join(sentences) for sentences in documents])
        occurrences += [
            (phrase, name, row, position)
            for row, sentences in zip(rows, documents, strict=True)
            for position, phrase in enumerate(sentences)
        ]
    yield build(target, folder, shard_rows=100), occurrences


def test_counts_and_first_occurrences_match_a_plain_reference(
    mixed: Mixed,
) -> None:
    report, occurrences = mixed
    bank = PhraseBank.open(report.path)
    assert contents(bank) == expected(occurrences)
    assert (report.phrases, report.occurrences) == (len(bank), len(occurrences))
    assert (report.embedded, report.reused, report.resumed) == (len(bank), 0, 0)


def test_every_embedding_belongs_to_its_phrase(mixed: Mixed) -> None:
    bank = PhraseBank.open(mixed[0].path)
    ids = np.arange(len(bank))
    np.testing.assert_allclose(bank.embeddings(ids), HashTeacher().encode(bank.phrases(ids)), atol=1e-3)


def test_bad_rows_end_in_rejects_with_their_reason(mixed: Mixed) -> None:
    report, _ = mixed
    assert report.rejects == {"NUL byte": 1, "not JSON": 2, "not UTF-8": 1, "null": 2}
    assert report.records == 60 * len(FILES) + 6
    rows = pq.read_table(report.path / "rejects" / report.version).to_pylist()
    found = Counter((Path(row["source"]).name, row["reason"]) for row in rows)
    assert found["a.parquet", "not UTF-8"] == found["d.csv", "NUL byte"] == found["c.jsonl.gz", "null"] == 1
    assert len(rows) == 6


def test_nothing_is_left_of_a_finished_build(mixed: Mixed) -> None:
    assert [path.name for path in (mixed[0].path / ".build").iterdir()] == ["lock"]


def test_the_same_build_again_is_up_to_date(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", range(30))
    first, again = build(tmp_path / "bank", corpus), build(tmp_path / "bank", corpus)
    assert again.up_to_date and not first.up_to_date
    assert again.version == first.version == "v000001"
    restarted = run(configure(tmp_path / "bank", corpus), restart=True, track=silent)
    assert (restarted.version, restarted.embedded) == ("v000002", restarted.phrases)


def test_an_index_of_parts_finds_what_exact_search_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "PART_ROWS", 300)
    corpus = write_lines(tmp_path / "corpus.txt", range(700))
    report = build(
        tmp_path / "bank", corpus, shard_rows=200, index=IndexConfig(factory="IVF16,Flat", recall_target=0.99)
    )
    bank = PhraseBank.open(report.path)
    queries = bank.embeddings(np.arange(0, len(bank), 5))
    found, exact = bank.search(queries, 10), bank.exact_search(queries, 10)
    assert np.mean(found.scores >= exact.scores[:, -1:] - 1e-5) >= 0.97
    assert bank.manifest.index.factory == "IVF16,Flat"


def test_units_and_rules_decide_the_phrases(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", range(100))
    rules = PhraseRules(units=("sentence", "ngram"), ngram_words=(2, 2), min_count=2)
    bank = PhraseBank.open(build(tmp_path / "bank", corpus, rules=rules, embedding_dtype="float32").path)
    found = contents(bank)
    assert found["The owl"][0] == 100 and found["A dog waits at gate 3."][0] == 2
    assert "Boat 5 left." not in found and min(count for count, *_ in found.values()) == 2
    assert bank.manifest.embedding_dtype == "float32"


def test_append_equals_a_rebuild_of_the_union_and_leaves_readers_alone(tmp_path: Path) -> None:
    old, new = write_lines(tmp_path / "1.txt", range(60)), write_lines(tmp_path / "2.txt", range(40, 120))
    first = build(tmp_path / "bank", old, shard_rows=50)
    reader = PhraseBank.open(tmp_path / "bank")
    before = reader.search(reader.embeddings([0, 1]), 3)
    appended = build(tmp_path / "bank", new, shard_rows=50, append=True)
    union = build(tmp_path / "union", old, new)

    assert contents(PhraseBank.open(tmp_path / "bank")) == contents(PhraseBank.open(tmp_path / "union"))
    assert (appended.version, appended.occurrences) == ("v000002", union.occurrences)
    assert (appended.reused, appended.embedded) == (first.phrases, union.phrases - first.phrases)
    after = reader.search(reader.embeddings([0, 1]), 3)
    np.testing.assert_array_equal(before.ids, after.ids)
    assert len(contents(PhraseBank.open(tmp_path / "bank", version="v000001"))) == first.phrases
    assert build(tmp_path / "bank", new, shard_rows=50, append=True).up_to_date  # never counted twice


def test_append_refuses_another_embedding_type_and_other_rules(tmp_path: Path) -> None:
    corpus, more = write_lines(tmp_path / "1.txt", range(9)), write_lines(tmp_path / "2.txt", range(9, 12))
    build(tmp_path / "bank", corpus)
    with pytest.raises(CellularError, match="another embedding dtype"):
        build(tmp_path / "bank", more, append=True, embedding_dtype="float32")
    with pytest.raises(CellularError, match="another rules"):
        build(tmp_path / "bank", more, append=True, rules=PhraseRules(min_characters=5))
    assert current_version(tmp_path / "bank") == "v000001"


def test_mistakes_found_on_the_cluster_are_plain_errors(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", range(3))
    with pytest.raises(CellularError, match="FAISS factory"):
        build(tmp_path / "bank", corpus, index=IndexConfig(factory="nonsense"))
    with pytest.raises(CellularError, match="no phrase is left"):
        build(tmp_path / "bank", corpus, rules=PhraseRules(min_characters=200))
    with pytest.raises(CellularError, match="needs at least 16 phrases"):
        build(tmp_path / "bank", corpus, index=IndexConfig(factory="IVF16,Flat"))
    with pytest.raises(CellularError, match="no bank in"):
        build(tmp_path / "none", corpus, append=True)
    assert current_version(tmp_path / "bank") is None
    assert build(tmp_path / "bank", corpus).version == "v000001"  # other settings now: nothing was lost
