"""Validated settings of training. Importing them needs no torch, so that `--help` stays instant."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cellular.config import CorpusConfig, Fraction, ResourceConfig, Settings, TeacherConfig

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class DataConfig(Settings):
    """Which texts are learned."""

    corpus: CorpusConfig
    vocabulary: Path | None = Field(None, description="vocabulary.json; None: the packaged one")
    min_characters: PositiveInt = 3
    max_characters: PositiveInt = 160
    held_out: Share = Field(0.01, description="share of the texts kept for the held-out loss")


class TrainingDataConfig(DataConfig):
    """The same with the teacher whose embeddings go with them."""

    teacher: TeacherConfig = TeacherConfig()
    shard_rows: PositiveInt | None = Field(None, description="texts a shard, the unit of resume")


class OptimizerConfig(Settings):
    """Muon for the matrices, AdamW for everything else."""

    matrix_rate: PositiveFloat = Field(0.02, description="learning rate of Muon")
    matrix_decay: float = Field(0.01, ge=0, description="weight decay of Muon")
    rate: PositiveFloat = Field(3e-3, description="learning rate of AdamW")
    decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    average_steps: NonNegativeInt = Field(500, description="steps that the weights' average spans; 0: none")


class ScheduleConfig(Settings):
    """How long, and at which share of the learning rate. Give `steps` or `seconds`."""

    steps: PositiveInt | None = Field(None, description="optimiser steps; the same result on any hardware")
    seconds: PositiveFloat | None = Field(None, description="training time, compilation not counted")
    warmup_steps: NonNegativeInt = Field(200, description="at most a tenth of the training")
    floor: Fraction = Field(0.02, description="share of the learning rate at the end of the cosine")

    @model_validator(mode="after")
    def _one_length(self) -> "ScheduleConfig":
        if (self.steps is None) == (self.seconds is None):
            raise ValueError("give either steps or seconds")
        return self


class LoopConfig(Settings):
    """What is done every so often, and how the work is issued."""

    resident_bytes: PositiveInt = Field(8 << 30, description="training data kept on a worker's device")
    tick_steps: PositiveInt = Field(
        20, description="steps between looks at the clock; fewer if they take long"
    )
    log_seconds: float = Field(5.0, ge=0, description="between two lines of progress")
    checkpoint_seconds: PositiveFloat = Field(
        30.0, description="between two checkpoints, at least: they take a tenth of the time at most"
    )
    checkpoint_steps: PositiveInt | None = Field(None, description="checkpoints by steps instead")
    keep_checkpoints: PositiveInt = 2
    compile: bool | None = Field(None, description="torch.compile; None: on a GPU")
    graphs: bool | None = Field(None, description="CUDA graphs; None: on a GPU")
    seed: int = 0


class TextLoopConfig(LoopConfig):
    """The same where batches are texts: their size is counted in positions, padding included."""

    batch_tokens: PositiveInt | None = Field(
        None,
        description="positions in one optimiser step, all workers; None: 131,072 on GPUs, else 8,192",
    )
    pass_tokens: PositiveInt = Field(131_072, description="positions in one pass of a worker")
    equal: Literal["texts", "pieces"] = Field(
        "texts", description="what counts the same: a short text as much as a long one, or every piece"
    )

    def step_tokens(self, device: str) -> int:
        """`batch_tokens`, or what suits a type of device: on a processor a step is to take seconds."""
        return self.batch_tokens or (131_072 if device == "cuda" else 8_192)


class RETLoopConfig(TextLoopConfig):
    """The same with RET's own kernels."""

    fused: bool | None = Field(None, description="the pass by our kernels; None: on a Hopper GPU")


class WorkersConfig(Settings):
    """How much of the cluster trains. Changes speed, never what is learned beyond noise."""

    workers: PositiveInt = Field(1, description="most workers; one a GPU")
    min_workers: PositiveInt | None = Field(None, description="go on with so few; None: with `workers` only")
    gpu: bool | None = Field(None, description="a GPU each and NCCL, or CPUs and gloo; None: as there are")
    worker_cpus: PositiveFloat | None = Field(
        None, description="also its threads; None: .5 beside a GPU, else an equal share of the cores"
    )
    max_failures: int = Field(3, ge=-1, description="restarts from a checkpoint; -1: any number")
    resize_seconds: PositiveFloat = Field(60.0, description="between looks for room for more workers")

    @model_validator(mode="after")
    def _range(self) -> "WorkersConfig":
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError("min_workers exceeds workers")
        return self


class TrainingConfig(Settings):
    """What every training is asked for, whatever it trains."""

    target: Path = Field(description="folder of the run, on a file system that every node sees")
    data: DataConfig
    data_folder: Path | None = Field(None, description="prepared data, to be shared; None: TARGET/data")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    loop: LoopConfig = LoopConfig()
    workers: WorkersConfig = WorkersConfig()
    embedding: ResourceConfig = ResourceConfig()


class VariationConfig(Settings):
    """What is done to the inputs while training, and never to the targets."""

    embedding_noise: float = Field(0.0, ge=0, description="largest length of noise added to a unit embedding")
    piece_drop: Share = Field(0.0, description="share of input pieces replaced by END, which never is one")


class RewardConfig(Settings):
    """Fine-tuning on the decoder's own samples, by what the teacher reads in them."""

    samples: PositiveInt = Field(8, ge=2, description="texts drawn of each embedding")
    temperature: PositiveFloat = Field(1.0, description="of the draws")
    overlap: float = Field(1.5, ge=0, description="weight of shared n-grams beside the teacher's cosine")
    likelihood: float = Field(0.1, ge=0, description="weight of the true text's pieces beside the samples'")
    length_rate: float = Field(0.02, ge=0, description="how fast the price of a text's length is mended")
    blend: Fraction = Field(0.25, description="share of what was learned that is added to the base's weights")


class TrainRETConfig(TrainingConfig):
    """One training of a RET decoder."""

    data: TrainingDataConfig
    base: str | None = Field(None, description="checkpoint to start from: a name or a folder")
    only: Literal["projection"] | None = Field(None, description="train it alone, for another teacher")
    applications: PositiveInt | None = Field(None, description="of the layer; None: as the base, or 8")
    precision: Literal["fp32", "int8", "int4"] = Field("fp32", description="how the weights will be stored")
    sparsity: Share = Field(0.0, description="share of the weights that is pruned")
    variation: VariationConfig = VariationConfig()
    reward: RewardConfig | None = Field(None, description="None: likelihood alone")
    loop: RETLoopConfig = RETLoopConfig()

    @model_validator(mode="before")
    @classmethod
    def _small_steps(cls, values: Any) -> Any:
        """A reward's gradient is mostly noise: unless they are set, rates are small and averages short."""
        given = values.get("optimizer") or {} if isinstance(values, dict) else None
        if not isinstance(given, dict) or values.get("reward") is None:
            return values
        return {**values, "optimizer": {"rate": 3e-4, "average_steps": 200, **given}}

    @model_validator(mode="after")
    def _base(self) -> "TrainRETConfig":
        if self.only and not self.base:
            raise ValueError("only needs base: the checkpoint whose other weights are kept")
        return self
