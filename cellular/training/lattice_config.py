"""Settings of a training from embeddings to embeddings: which belong together, and what is asked of them."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cellular.config import Fraction, Settings
from cellular.lattice.config import LatticeConfig
from cellular.training.config import (
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    Share,
    TrainingConfig,
    TrainingDataConfig,
)


class PairsConfig(Settings):
    """Which texts of the files belong together, by their columns.

    With `group` and `order` a text leads to the next of its group, as the turns of a dialogue do; with
    `group` alone to any other, as the captions of an image do; with `source` and `target` a row is a pair.
    """

    group: str | None = Field(None, description="column; rows of one value belong together")
    order: str | None = Field(None, description="column of numbers that puts a group in order")
    source: str | None = Field(None, description="column of the texts that are read")
    target: str | None = Field(None, description="column of the texts that are to be found")

    @model_validator(mode="after")
    def _one_way(self) -> "PairsConfig":
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target need each other")
        if (self.group is None) == (self.source is None):
            raise ValueError("give either group, perhaps with order, or source and target")
        if self.order and not self.group:
            raise ValueError("order needs group: the column whose rows follow each other")
        return self

    @property
    def ordered(self) -> bool:
        """Whether a text leads to the one after it, in contrast to any other of its group."""
        return self.order is not None or self.source is not None


class DamageConfig(Settings):
    """What is done to embeddings before they are read: one of these to each."""

    clean: Fraction = Field(0.2, description="share of the embeddings that is left as it is")
    noise: float = Field(1.0, ge=0, description="largest length of noise added to a unit embedding")
    drop: Share = Field(0.7, description="largest share of the numbers set to zero")
    bits: tuple[PositiveInt, ...] = Field((4, 8), description="bits that each number is rounded to")


class LossConfig(Settings):
    """What is made small: a sum of these."""

    contrast: float = Field(1.0, ge=0, description="weight of InfoNCE, in nats")
    temperature: PositiveFloat = Field(0.05, description="of InfoNCE")
    soft: Share = Field(0.0, description="share of InfoNCE's wanted distribution that follows similarity")
    soft_temperature: PositiveFloat = Field(0.1, description="of that similarity, to targets or by guides")
    extra: NonNegativeInt = Field(
        2_048, description="targets of other texts that are wrong, besides the batch's"
    )
    cosine: float = Field(1.0, ge=0, description="weight of 1 - cosine")
    likelihood: float = Field(0.0, ge=0, description="weight of the target's text by a frozen RET decoder")
    decoder: str = Field("ret-all-MiniLM-L6-v2", description="that decoder: a name or a folder")
    decoded: PositiveInt = Field(256, description="texts of a pass that it is asked for")


class MLPShape(Settings):
    """What an MLP looks like, where one is trained."""

    hidden: PositiveInt | None = Field(
        None, description="width of its layers; None: as many parameters as the lattice would have"
    )
    skip: bool = Field(False, description="whether its output begins as its input")


class LatticeOptimizerConfig(OptimizerConfig):
    """The same with what suits a lattice."""

    rate: PositiveFloat = Field(1e-3, description="learning rate of AdamW")
    average_steps: NonNegativeInt = Field(300, description="steps that the weights' average spans; 0: none")


class LatticeScheduleConfig(ScheduleConfig):
    """The same for trainings of a few hundred steps, each of thousands of embeddings."""

    warmup_steps: NonNegativeInt = Field(20, description="at most a tenth of `steps`")


class EmbeddingLoopConfig(LoopConfig):
    """The same where batches are embeddings."""

    batch: PositiveInt | None = Field(
        None,
        ge=2,
        description="embeddings in one optimiser step, all workers; None: 1,024, of a lattice on CPUs 128",
    )
    pass_rows: PositiveInt = Field(1_024, ge=2, description="embeddings in one pass of a worker")
    compile: bool | None = Field(False, description="torch.compile, which takes a minute to begin")


SUITED: dict[str, dict[str, dict[str, Any]]] = {
    "reconstruct": {"loss": {"contrast": 0.1, "extra": 0}},
    "map": {
        "lattice": {"dropout": 0.3},
        "damage": {"clean": 0.0, "noise": 1.0, "drop": 0.0, "bits": ()},
        "loss": {"cosine": 0.0},
    },
}


class TrainLatticeConfig(TrainingConfig):
    """One training of a lattice, or of an MLP to compare it with."""

    data: TrainingDataConfig
    objective: Literal["reconstruct", "map"] = Field(
        "reconstruct", description="reconstruct: an embedding from a damaged one; map: its pair's"
    )
    pairs: PairsConfig | None = Field(None, description="for map")
    model: Literal["lattice", "mlp"] = Field("lattice", description="mlp: of as many parameters")
    lattice: LatticeConfig = LatticeConfig()
    mlp: MLPShape = MLPShape()
    base: str | None = Field(
        None,
        description="checkpoint to start from, a name or a folder; `lattice` then sets no more than dropout",
    )
    guides: tuple[str, ...] = Field(
        (), description="trained lattices and MLPs whose mean output soft labels follow; needs loss.soft"
    )
    history: NonNegativeInt = Field(0, description="earlier texts of the group that are read too, for map")
    forget: Share = Field(0.5, description="share of the sources whose history is cut at a random place")
    damage: DamageConfig = DamageConfig()
    loss: LossConfig = LossConfig()
    optimizer: LatticeOptimizerConfig = LatticeOptimizerConfig()
    schedule: LatticeScheduleConfig
    loop: EmbeddingLoopConfig = EmbeddingLoopConfig()

    def step_rows(self, device: str) -> int:
        """`loop.batch`, or what suits a type of device: on a processor a step is to take seconds."""
        return self.loop.batch or (128 if self.model == "lattice" and device != "cuda" else 1_024)

    @model_validator(mode="before")
    @classmethod
    def _of_the_objective(cls, values: Any) -> Any:
        """What is not set is as suits the objective."""
        if not isinstance(values, dict):
            return values
        for section, defaults in SUITED.get(values.get("objective") or "reconstruct", {}).items():
            given = values.get(section) or {}
            if isinstance(given, dict):
                values = {**values, section: defaults | given}
        return values

    @model_validator(mode="after")
    def _fits(self) -> "TrainLatticeConfig":
        if (self.objective == "map") != (self.pairs is not None):
            raise ValueError("map needs pairs, reconstruct has none: give --group or --source and --target")
        if self.history and not (self.pairs and self.pairs.order):
            raise ValueError("history needs pairs with an order: what came before is not known")
        if self.guides and not self.loss.soft:
            raise ValueError("guides need loss.soft above 0: the share of what is wanted that follows them")
        return self
