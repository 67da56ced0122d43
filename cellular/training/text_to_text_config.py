"""Settings of a text-to-text training. A task is a setting: which texts of the data belong together."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from cellular.cct.config import CCTConfig
from cellular.config import Settings
from cellular.training.config import DataConfig, OptimizerConfig, Share, TextLoopConfig, TrainingConfig
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


class PairDataConfig(DataConfig):
    """Which pairs of texts are learned. A file without the columns of a task has no pairs for it."""

    tasks: dict[str, TaskConfig] = Field(
        {"reconstruct": TASKS["reconstruct"]}, min_length=1, description="by name; the first is the default"
    )
    shard_rows: PositiveInt = Field(65_536, description="pairs a file of prepared data")


class TextToTextOptimizerConfig(OptimizerConfig):
    """The same with what suits text to text."""

    rate: PositiveFloat = Field(2e-3, description="learning rate of AdamW")


class TextToTextLoopConfig(TextLoopConfig):
    """The same; a pass takes about 35 GiB, most of it for the lattices of short texts."""

    pass_tokens: PositiveInt = Field(65_536, description="positions in one pass of a worker")
    equal: Literal["texts", "pieces"] = Field(
        "pieces", description="what counts the same: a short text as much as a long one, or every piece"
    )


class TrainTextToTextConfig(TrainingConfig):
    """One training of a text-to-text model."""

    data: PairDataConfig
    shape: CCTConfig = Field(CCTConfig(), description="but for its tasks, which are those of the data")
    piece_drop: Share = Field(0.1, description="share of the target's read pieces hidden in training")
    optimizer: TextToTextOptimizerConfig = TextToTextOptimizerConfig()
    loop: TextToTextLoopConfig = TextToTextLoopConfig()

    @property
    def network(self) -> CCTConfig:
        """The shape with the tasks of the data."""
        return self.shape.model_copy(update={"tasks": tuple(self.data.tasks)})
