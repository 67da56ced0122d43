"""A text-to-text training learns what it is told to, and its settings say what that is."""

from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from cellular.cct import TextToText
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.lattice import LatticeConfig
from cellular.training.pairs import COLUMNS
from cellular.training.text_to_text import PairSource, make_model, make_trainer, matrices
from cellular.training.text_to_text_config import TASKS, TrainTextToTextConfig

from .conftest import SENTENCES

STEPS = 60
REPLIES = [*SENTENCES[1:], SENTENCES[0]]


def configure(**settings: Any) -> TrainTextToTextConfig:
    lattice = LatticeConfig(
        embedding_dimension=64, size=(2, 4, 4), steps=2, channels=16, face_channels=4, update_probability=1.0
    )
    data = {
        "corpus": {"inputs": ["unused"]},
        "tasks": {name: TASKS[name] for name in ("reconstruct", "reply")},
    }
    shape = {"hidden": 64, "heads": 2, "inner": 96, "encoder_layers": 1, "decoder_layers": 1, "slots": 8}
    defaults = {
        "target": "unused",
        "data": data,
        "shape": {**shape, "lattice": lattice},
        "schedule": {"steps": STEPS},
        "piece_drop": 0.0,
        "optimizer": {"average_steps": 10, "rate": 1e-2},
        "loop": {"batch_tokens": 600, "pass_tokens": 200},
    }
    return TrainTextToTextConfig.model_validate(defaults | settings)


def pairs() -> pa.Table:
    encode = Vocabulary.load().encode_batch
    sources = [ids.tobytes() for ids in encode(SENTENCES + SENTENCES)]
    targets = [ids.tobytes() for ids in encode(SENTENCES + REPLIES)]
    tasks = [0] * len(SENTENCES) + [1] * len(SENTENCES)
    columns = (pa.array(sources, pa.binary()), pa.array(targets, pa.binary()), pa.array(tasks, pa.uint8()))
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


def test_sentences_and_their_replies_are_learned_by_heart() -> None:
    config, table = configure(), pairs()
    torch.manual_seed(0)
    trainer = make_trainer(config, make_model(config))
    source = PairSource(lambda: [table], lambda: [table], config, torch.device("cpu"))
    before = source.evaluate(trainer)
    for step in range(STEPS):
        trainer.step(source.draw(step)[0], step / STEPS)
    after = source.evaluate(trainer)
    assert before and after and after < before / 5
    model = trainer.averaged().eval()
    decoder = TextToText(model, Vocabulary.load())  # type: ignore[arg-type]
    assert decoder.generate(SENTENCES) == SENTENCES
    assert decoder.generate(SENTENCES, task="reply") == REPLIES


def test_tasks_are_those_of_the_data() -> None:
    assert configure().network.tasks == ("reconstruct", "reply")
    assert make_model(configure()).config == configure().network
    again = TrainTextToTextConfig.model_validate(configure().model_dump(mode="json"))
    assert again == configure()


def test_matrices_are_told_from_tables() -> None:
    model = make_model(configure())
    chosen = matrices(model)
    assert chosen["encoder.layers.0.query_key_value"] == 3
    assert chosen["encoder.pool.value"] == chosen["decoder.slots_ED"] == 8
    assert chosen["lattice.rule.perceive.weight"] == 1
    assert not {"tasks", "decoder.pieces", "encoder.tokenizer.pieces", "encoder.pool.score"} & set(chosen)


def test_a_training_without_a_task_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        configure(data={"corpus": {"inputs": ["x"]}, "tasks": {}})
