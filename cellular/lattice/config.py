"""Shape of a lattice and what happens in it."""

from pydantic import Field, PositiveInt, field_validator, model_validator

from cellular.config import Settings
from cellular.lattice.perceive import Neighbours, Padding, View


class LatticeConfig(Settings):
    """Every setting but `embedding_dimension` can be compared with another on the same embeddings."""

    embedding_dimension: PositiveInt = Field(384, description="of what enters and of what leaves")
    size: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (8, 8, 8), description="cells along x, y, z; embeddings enter at x = 0 and leave at the far end of x"
    )
    channels: int = Field(96, ge=2, description="numbers in a cell's state")
    face_channels: PositiveInt = Field(
        16, description="numbers that a cell of the input face is given, and one of the output face gives"
    )
    steps: PositiveInt = Field(8, description="updates of every cell; the far face is size[0] - 1 away")
    neighbours: Neighbours = Field(6, description="6: across faces; 26: across edges and corners too")
    padding: Padding = Field("zeros", description="beyond the border; replicate: its nearest cell")
    rule: str | None = Field("nca", description="a name in RULES; None: only sweeps, for comparisons")
    inner: PositiveInt = Field(2, description="width of a rule's hidden layer, in times of the channels")
    update_probability: float = Field(
        0.9, gt=0, le=1, description="of a cell's update in a step of training, rule nca"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="of the numbers that go to the input face and come from the output face"
    )
    sweeps: tuple[str, ...] = Field(
        ("raster", "columns", "hilbert"),
        description="names in ORDERS that Mamba follows, in turn, both ways; none: no Mamba",
    )
    sweep_every: PositiveInt = Field(2, description="steps before a sweep; none follows the last step")
    history: PositiveInt | None = Field(
        None, multiple_of=16, description="width of the Mamba that reads earlier turns; None: it takes none"
    )

    @property
    def view(self) -> View:
        """What a cell sees."""
        return View(self.neighbours, self.padding)

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, rule: str | None) -> str | None:
        from cellular.lattice.rules import RULES  # a rule is made from these settings

        if rule is not None and rule not in RULES:
            raise ValueError(f"no rule {rule}: take one of {', '.join(RULES)}")
        return rule

    @field_validator("sweeps")
    @classmethod
    def _known_orders(cls, sweeps: tuple[str, ...]) -> tuple[str, ...]:
        from cellular.lattice.orders import ORDERS

        for order in sweeps:
            if order not in ORDERS:
                raise ValueError(f"no order {order}: take some of {', '.join(ORDERS)}")
        return sweeps

    @model_validator(mode="after")
    def _mamba_has_whole_heads(self) -> "LatticeConfig":
        if self.sweeps and self.channels % 16:
            raise ValueError(f"channels must be a multiple of 16 for Mamba's heads, not {self.channels}")
        return self
