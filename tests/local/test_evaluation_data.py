"""The bank of the train files, built by the real pipeline."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.config import TeacherConfig
from pipelines.evaluation_data import training_bank, training_counts

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data's own
]

RAIN = "Rain falls on the roof."
TEXTS = [
    "A dog. It runs on the beach.",
    "Rain falls on the roof.",
    "no",
    "x" * 200,
    "Rain falls on the roof.",
]


def test_the_training_banks_phrases_are_the_training_texts_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLULAR_HOME", str(tmp_path / "home"))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "one_train.parquet")
    pq.write_table(pa.table({"text": ["Held out text."]}), tmp_path / "one_test.parquet")
    bank = training_bank(tmp_path, TeacherConfig(name="hash"))
    counts = training_counts(tmp_path)
    assert dict(zip(bank.phrases(range(len(bank))), bank.count_column(), strict=True)) == counts
    assert training_bank(tmp_path, TeacherConfig(name="hash")).version == bank.version
