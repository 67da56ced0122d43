"""Shape of the text-to-text model."""

from pydantic import Field, PositiveInt, model_validator

from cellular.config import Settings
from cellular.lattice import LatticeConfig


class CCTConfig(Settings):
    """Between 5 and 10 million parameters as it stands: a third each in encoder, lattice and decoder."""

    hidden: PositiveInt = Field(256, description="numbers in a token's or a piece's state")
    heads: PositiveInt = Field(4, description="of attention")
    inner: PositiveInt = Field(768, description="width of an MLP's hidden layer")
    kernel: int = Field(5, ge=1, description="pieces that the tokenizer's convolution sees; odd")
    encoder_layers: PositiveInt = 4
    decoder_layers: PositiveInt = 4
    slots: PositiveInt = Field(16, description="parts of the embedding, each pooled and read by itself")
    tasks: tuple[str, ...] = Field(
        ("reconstruct",), min_length=1, description="what it has learned to do; the first is the default"
    )
    lattice: LatticeConfig = LatticeConfig(
        embedding_dimension=1024, size=(4, 8, 8), steps=4, update_probability=1.0
    )

    @property
    def embedding_dimension(self) -> int:
        """E: of what enters the lattice and of what leaves it."""
        return self.lattice.embedding_dimension

    @model_validator(mode="after")
    def _parts_fit(self) -> "CCTConfig":
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden must be an even multiple of heads {self.heads}, not {self.hidden}")
        if self.embedding_dimension % self.slots:
            raise ValueError(
                f"the lattice's embedding_dimension must be a multiple of slots {self.slots}, "
                f"not {self.embedding_dimension}"
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must differ: {', '.join(self.tasks)}")
        return self
