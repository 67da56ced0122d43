"""Settings of a text-to-text training. A task is a setting: which texts of the data belong together."""

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from cellular.cct.config import CCTConfig
from cellular.config import CorpusConfig, Settings
from cellular.training.config import Share, TextLoopConfig, TrainingConfig
from cellular.training.lattice_config import PairsConfig


class TaskConfig(Settings):
    """What is written for a text: the text that goes with it, or itself."""

    pairs: PairsConfig | None = Field(None, description="which texts go together; None: each with itself")
    weight: PositiveInt = Field(1, description="times that each pair is learned in a pass over the data")


TASKS = {
    "reconstruct": TaskConfig(),
    "reply": TaskConfig(pairs=PairsConfig(group="dialogue_id", order="turn")),
    "paraphrase": TaskConfig(pairs=PairsConfig(group="image_id")),
}


class PairDataConfig(Settings):
    """Which pairs of texts are learned. A file without the columns of a task has no pairs for it."""

    corpus: CorpusConfig
    tasks: dict[str, TaskConfig] = Field(
        {"reconstruct": TASKS["reconstruct"]}, min_length=1, description="by name; the first is the default"
    )
    vocabulary: Path | None = Field(None, description="vocabulary.json; None: the packaged one")
    min_characters: PositiveInt = 3
    max_characters: PositiveInt = 160
    held_out: Share = Field(0.01, description="share of the sources kept for the held-out loss")
    shard_rows: PositiveInt = Field(65_536, description="pairs a file of prepared data")


class TrainTextToTextConfig(TrainingConfig):
    """One training of a text-to-text model."""

    data: PairDataConfig
    shape: CCTConfig = Field(CCTConfig(), description="its `tasks` are those of the data")
    piece_drop: Share = Field(0.1, description="share of the target's read pieces hidden in training")
    loop: TextLoopConfig = TextLoopConfig()

    @model_validator(mode="after")
    def _tasks_of_the_data(self) -> "TrainTextToTextConfig":
        tasks = tuple(self.data.tasks)
        if self.shape.tasks != tasks:
            object.__setattr__(self, "shape", self.shape.model_copy(update={"tasks": tasks}))
        return self
