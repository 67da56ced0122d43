"""Validated settings of an adapter's training."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from cellular.adapter.config import StrategyName
from cellular.config import Settings, TeacherConfig
from cellular.training.config import (
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    TrainingDataConfig,
)


class ContrastConfig(Settings):
    """How much an adapter is to tell texts apart, beside meeting their embeddings."""

    weight: float = Field(0.1, ge=0, description="of InfoNCE among a batch, beside 1 - cosine")
    temperature: PositiveFloat = Field(0.05, description="of its scores")


class PairOptimizerConfig(OptimizerConfig):
    """Small steps: training starts from a map that is good already."""

    rate: PositiveFloat = Field(1e-3, description="learning rate of AdamW")
    average_steps: NonNegativeInt = Field(100, description="steps that the weights' average spans; 0: none")


class PairLoopConfig(LoopConfig):
    """The loop where batches are pairs of embeddings."""

    batch_pairs: PositiveInt = Field(512, description="pairs in one optimiser step, all workers")


class TrainAdapterConfig(TrainingConfig):
    """One training of an adapter; `data.teacher` gives the embeddings that the source's are to become."""

    data: TrainingDataConfig
    source: TeacherConfig = TeacherConfig(name="lsa")
    strategy: StrategyName = "linear"
    width: PositiveInt = Field(128, description="hidden numbers, or anchors; unused by linear")
    contrast: ContrastConfig = ContrastConfig()
    optimizer: PairOptimizerConfig = PairOptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig(steps=2_000)
    loop: PairLoopConfig = PairLoopConfig()
