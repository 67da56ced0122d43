"""Settings of a text-to-text training. A task is a setting: which texts of the data belong together."""

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from cellular.cct.config import CCTConfig
from cellular.config import CorpusConfig, Settings
from cellular.training.config import OptimizerConfig, Share, TextLoopConfig, TrainingConfig


class TaskConfig(Settings):
    """What is written for a text: itself, the text that follows it in its group, or others of its group."""

    group: str | None = Field(None, description="column; rows of a file with one value belong together")
    order: str | None = Field(None, description="column; a row of the group is followed by the next")
    weight: PositiveInt = Field(1, description="times that each pair is learned in a pass over the data")

    @model_validator(mode="after")
    def _order_is_of_groups(self) -> "TaskConfig":
        if self.order and not self.group:
            raise ValueError("order needs group: the column that says which rows follow each other")
        return self


class PairDataConfig(Settings):
    """Which pairs of texts are learned. Files without a task's columns have no pairs of it."""

    corpus: CorpusConfig
    tasks: dict[str, TaskConfig] = Field({"reconstruct": TaskConfig()}, min_length=1)
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
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: TextLoopConfig = TextLoopConfig()

    @model_validator(mode="after")
    def _tasks_of_the_data(self) -> "TrainTextToTextConfig":
        tasks = tuple(self.data.tasks)
        if self.shape.tasks != tasks:
            object.__setattr__(self, "shape", self.shape.model_copy(update={"tasks": tasks}))
        return self
