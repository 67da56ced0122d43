"""PhraseBankDecoder over a small real bank of the hash teacher."""

import json
import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from cellular.bank import PhraseBank, create_bank
from cellular.config import DecodingConfig, IndexConfig
from cellular.decoders import ASSEMBLERS, PhraseBankDecoder, Session, default_bank_path
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.types import FloatArray

TEACHER = HashTeacher()
LONELY = TEACHER.encode(["one lonely phrase"])[0]


def make(bank: PhraseBank | None, **settings: Any) -> PhraseBankDecoder:
    decoder = PhraseBankDecoder(DecodingConfig.model_validate(settings))
    if bank is not None:
        decoder.load_phrase_bank(bank, embedding_loader=TEACHER)
    return decoder


@pytest.fixture(scope="module")
def targets(topic_sentences: list[str]) -> FloatArray:
    pairs = [f"{a} {b}" for a, b in zip(topic_sentences[:10], topic_sentences[50:60], strict=True)]
    return TEACHER.encode([*topic_sentences[20:30], *pairs])


def test_assembly_methods_of_the_settings_are_those_of_the_registry() -> None:
    assert set(ASSEMBLERS) == set(get_args(DecodingConfig.model_fields["assembly_method"].annotation))


@pytest.mark.parametrize("method", ASSEMBLERS)
class TestContract:
    def test_a_phrase_of_the_bank_comes_back(
        self, method: str, topic_bank: PhraseBank, topic_sentences: list[str], targets: FloatArray
    ) -> None:
        decoder = PhraseBankDecoder(DecodingConfig.model_validate({"assembly_method": method}))
        decoder.load_phrase_bank(topic_bank)
        assert [decoder.decode(row) for row in targets[:10]] == topic_sentences[20:30]

    def test_batch_and_single_decoding_agree_and_repeat(
        self, method: str, topic_bank: PhraseBank, targets: FloatArray
    ) -> None:
        decoder = PhraseBankDecoder(
            DecodingConfig.model_validate({"assembly_method": method, "enable_caching": False})
        )
        decoder.load_phrase_bank(topic_bank)
        results = decoder.decode_batch(targets)
        assert [decoder.decode(row) for row in targets] == [result.text for result in results]
        assert decoder.decode_batch(targets) == results

    def test_results_refer_to_the_bank(
        self, method: str, topic_bank: PhraseBank, targets: FloatArray
    ) -> None:
        decoder = PhraseBankDecoder(DecodingConfig.model_validate({"assembly_method": method}))
        decoder.load_phrase_bank(topic_bank)
        for result in decoder.decode_batch(targets):
            assert result.source == "bank" and result.reason is None
            assert all(phrase[1:] in result.text for phrase in topic_bank.phrases(result.phrases))
            assert len(result.candidates) == 5
            scores = [candidate.score for candidate in result.candidates]
            assert scores == sorted(scores, reverse=True)
            assert [topic_bank.phrase(hit.id) for hit in result.candidates] == [
                hit.phrase for hit in result.candidates
            ]

    def test_decoding_leaves_its_input_alone(
        self, method: str, topic_bank: PhraseBank, targets: FloatArray
    ) -> None:
        rows = targets.copy()
        decoder = PhraseBankDecoder(DecodingConfig.model_validate({"assembly_method": method}))
        decoder.load_phrase_bank(topic_bank)
        decoder.decode_batch(rows)
        decoder.decode(rows[0])
        assert np.array_equal(rows, targets)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(7, np.float32), "256"),
        (np.full(256, np.nan, np.float32), "nan"),
        (np.full(256, np.inf, np.float32), "inf"),
        (np.zeros(256, np.float32), "zero"),
        (np.ones(256, np.int64), "int64"),
        (np.float32(1), "shape"),
    ],
)
def test_invalid_embeddings_are_named(topic_bank: PhraseBank, bad: FloatArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(topic_bank).decode(bad)


def test_the_bad_row_of_a_batch_is_named(topic_bank: PhraseBank, targets: FloatArray) -> None:
    rows = targets.copy()
    rows[3, 5] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        make(topic_bank).decode_batch(rows)


def test_any_float_dtype_and_length_decode_alike(topic_bank: PhraseBank, targets: FloatArray) -> None:
    decoder = make(topic_bank, assembly_method="greedy", enable_caching=False)
    expected = [result.text for result in decoder.decode_batch(targets)]
    for rows in (targets.astype(np.float64) * 40, targets.astype(np.float16)):
        assert [result.text for result in decoder.decode_batch(rows)] == expected


def test_no_rows_give_no_texts(topic_bank: PhraseBank) -> None:
    decoder = make(topic_bank)
    assert decoder.decode_batch(np.empty((0, 256), np.float32)) == []
    assert decoder.batch_decode_with_sessions(np.empty((0, 256), np.float32), [0]) == []
    assert decoder.get_health_status()["last_error"] is None


class TestFallbacks:
    def test_without_a_bank(self, targets: FloatArray) -> None:
        decoder = make(None, fallback_text="?")
        assert decoder.decode(targets[0]) == "?"
        (result,) = decoder.decode_batch(targets[:1])
        assert (result.source, result.reason) == ("fallback", "no phrase bank is loaded")
        assert decoder.get_health_status()["status"] == "unloaded"
        assert decoder.get_statistics()["sources"] == {"fallback": 2}

    def test_below_the_threshold(self, topic_bank: PhraseBank) -> None:
        decoder = make(topic_bank, min_score=0.999)
        (result,) = decoder.decode_batch(TEACHER.encode(["zyx wvu tsr"]))
        assert result.source == "fallback" and "threshold" in str(result.reason)

    def test_when_the_search_fails(
        self, topic_bank: PhraseBank, targets: FloatArray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("disk is gone")

        decoder = make(topic_bank)
        monkeypatch.setattr(topic_bank, "search", fail)
        results = decoder.decode_batch(targets)
        assert {(result.source, result.reason) for result in results} == {
            ("fallback", "decoding failed: disk is gone")
        }
        assert decoder.get_statistics()["error_rate"] == 1.0
        assert "disk is gone" in str(decoder.get_health_status()["last_error"])
        monkeypatch.undo()
        assert decoder.decode_batch(targets)[0].source == "bank"  # a fallback is never cached

    def test_switched_off_they_are_errors(self, topic_bank: PhraseBank, targets: FloatArray) -> None:
        with pytest.raises(CellularError, match="no phrase bank is loaded"):
            make(None, enable_fallbacks=False).decode(targets[0])
        with pytest.raises(CellularError, match="threshold"):
            make(topic_bank, enable_fallbacks=False, min_score=1.0).decode(TEACHER.encode(["zyx wvu"])[0])


class TestLoading:
    def test_another_teacher_is_refused_by_name(self, topic_bank: PhraseBank) -> None:
        decoder = PhraseBankDecoder()
        other = HashTeacher(128)
        with pytest.raises(CellularError) as error:
            decoder.load_phrase_bank(topic_bank, embedding_loader=other)
        assert other.fingerprint in str(error.value) and TEACHER.fingerprint in str(error.value)
        assert decoder.get_health_status()["last_error"] == str(error.value)

    def test_no_path_means_the_demo_bank(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELLULAR_HOME", str(tmp_path))
        decoder = PhraseBankDecoder()
        with pytest.raises(CellularError, match="cellular demo"):
            decoder.load_phrase_bank()
        create_bank(default_bank_path(), ["a lonely phrase"], TEACHER)
        decoder.load_phrase_bank(embedding_loader=TEACHER)
        assert decoder.decode(LONELY) == "a lonely phrase"

    def test_replacing_the_bank_replaces_the_answers(self, tmp_path: Path, topic_bank: PhraseBank) -> None:
        create_bank(tmp_path, ["a lonely phrase"], TEACHER)
        decoder = make(topic_bank)
        assert decoder.decode(LONELY) != "a lonely phrase"
        decoder.load_phrase_bank(tmp_path)
        assert decoder.decode(LONELY) == "a lonely phrase"


class TestSessions:
    def test_they_do_not_see_one_another(self, topic_bank: PhraseBank, targets: FloatArray) -> None:
        decoder = make(topic_bank, context_weight=0.5)
        together = decoder.batch_decode_with_sessions(targets, [0, 7, 12])
        apart = [
            text
            for start, end in ((0, 7), (7, 12), (12, 20))
            for text in make(topic_bank, context_weight=0.5).batch_decode_with_sessions(targets[start:end])
        ]
        assert together == apart

    def test_a_session_is_its_turns_one_by_one(self, topic_bank: PhraseBank, targets: FloatArray) -> None:
        decoder = make(topic_bank, context_weight=0.5, enable_caching=False)
        session, texts = Session(), []
        for row in targets:
            texts.append(decoder.decode(row, session=session))
            session = Session.model_validate_json(session.after(row, texts[-1]).model_dump_json())
        assert decoder.batch_decode_with_sessions(targets, [0]) == texts

    def test_the_last_boundary_may_be_the_end(self, topic_bank: PhraseBank, targets: FloatArray) -> None:
        decoder = make(topic_bank)
        ended = decoder.batch_decode_with_sessions(targets, [0, 5, len(targets)])
        assert ended == decoder.batch_decode_with_sessions(targets, [0, 5])

    @pytest.mark.parametrize("boundaries", [[], [1], [0, 5, 3], [0, 5, 5], [0, 99], [0, -1]])
    def test_wrong_boundaries_are_refused(
        self, topic_bank: PhraseBank, targets: FloatArray, boundaries: list[int]
    ) -> None:
        with pytest.raises(ValueError, match="session boundaries"):
            make(topic_bank).batch_decode_with_sessions(targets, boundaries)

    def test_a_session_of_another_dimension_is_refused(
        self, topic_bank: PhraseBank, targets: FloatArray
    ) -> None:
        session = Session().after(np.ones(5, np.float32), "five")
        with pytest.raises(ValueError, match="session"):
            make(topic_bank).decode(targets[0], session=session)


class TestSettings:
    def test_they_survive_saving(self, topic_bank: PhraseBank, tmp_path: Path) -> None:
        decoder = make(topic_bank, assembly_method="weighted", top_k=7)
        decoder.save_config(tmp_path / "c.json")
        other = make(topic_bank)
        other.load_config(tmp_path / "c.json")
        assert other.config == decoder.config

    @pytest.mark.parametrize("content", ["", "[]", '{"top_k": 0}', '{"unknown": 1}'])
    def test_invalid_ones_change_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "c.json").write_text(content)
        decoder = make(None, top_k=7)
        with pytest.raises(CellularError, match=r"c\.json"):
            decoder.load_config(tmp_path / "c.json")
        assert decoder.config.top_k == 7

    def test_a_missing_file_is_one_clear_line(self, tmp_path: Path) -> None:
        with pytest.raises(CellularError, match="No such file"):
            make(None).load_config(tmp_path / "none.json")


def test_statistics_and_health_are_json(topic_bank: PhraseBank, targets: FloatArray) -> None:
    decoder = make(topic_bank)
    decoder.decode_batch(targets)
    decoder.decode_batch(targets)
    statistics = json.loads(json.dumps(decoder.get_statistics()))
    assert statistics["sources"] == {"bank": 20, "cache": 20}
    assert statistics["cache"]["hit_rate"] == 0.5
    assert set(statistics["milliseconds"]["search"]) == {"p50", "p95", "p99"}
    health = json.loads(json.dumps(decoder.get_health_status()))
    assert health["status"] == "healthy" and health["version"] == topic_bank.version


def test_threads_get_the_same_answers(topic_bank: PhraseBank, targets: FloatArray) -> None:
    decoder = make(topic_bank)
    expected = [result.text for result in make(topic_bank).decode_batch(targets)]
    seen: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: seen.append([decoder.decode(row) for row in targets]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 4
    assert decoder.get_statistics()["decoded"] == 4 * len(targets)


def test_optimising_reports_what_it_sets(topic_bank: PhraseBank, targets: FloatArray) -> None:
    decoder = make(topic_bank)
    before = decoder.decode(targets[0])
    report = decoder.optimize_for_production()
    assert decoder.config.search_effort == report.search_effort
    assert decoder.config.cache_size == report.cache_size
    assert report.threads >= 1 and report.recall >= decoder.config.recall_target
    assert decoder.decode(targets[0]) == before


def test_optimising_needs_a_bank() -> None:
    with pytest.raises(CellularError, match="load_phrase_bank"):
        make(None).optimize_for_production()


def test_optimising_finds_the_least_effort_of_an_approximate_bank(
    tmp_path: Path, topic_sentences: list[str]
) -> None:
    create_bank(tmp_path, topic_sentences, TEACHER, index=IndexConfig(factory="IVF16,SQ8", recall_target=1.0))
    decoder = make(PhraseBank.open(tmp_path), recall_target=0.8)
    report = decoder.optimize_for_production()
    default = PhraseBank.open(tmp_path).manifest.index.effort
    assert report.search_effort is not None and default is not None
    assert report.search_effort <= default and 0.8 <= report.recall <= 1
