"""The teacher as a worker: Ray Data calls it on the shards of a build, Ray Serve on requests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellular.bank.search import map_embeddings
from cellular.bank.writer import write_embeddings
from cellular.config import TeacherConfig
from cellular.files import atomic_path
from cellular.teachers import load_teacher
from cellular.types import FloatArray

SLICE_ROWS = 8_192  # texts encoded at once: enough to sort by length, a bounded share of memory


class Embedder:
    """Holds one teacher."""

    def __init__(self, teacher: TeacherConfig) -> None:
        self.teacher = load_teacher(teacher)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        return self.teacher.encode(texts)

    def describe(self) -> dict[str, Any]:
        """The embedding space."""
        return {name: getattr(self.teacher, name) for name in ("name", "dimension", "fingerprint")}


class ShardEmbedder(Embedder):
    """Embeds the shards of a build; takes over what a bank already holds.

    Args:
        teacher: which model.
        dtype: of the stored vectors.
        base: embeddings.arrow of the bank that is appended to, if any; its vectors are of `dtype`.
    """

    def __init__(
        self, teacher: TeacherConfig, dtype: Literal["float16", "float32"], base: Path | None = None
    ) -> None:
        super().__init__(teacher)
        self._dtype = dtype
        self._base = map_embeddings(base) if base else np.empty((0, self.teacher.dimension), dtype)

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Embed the phrases of file `phrases` into file `output`, unless an earlier attempt finished it."""
        output = Path(item["output"])
        with pa.memory_map(item["phrases"]) as file:
            shard = pa.ipc.open_file(file).read_all()
            if not output.exists():
                with atomic_path(output) as temporary:
                    write_embeddings(temporary, [self._vectors(shard)], self.teacher.dimension, self._dtype)
            embedded = shard["base_id"].null_count
        return {"phrases": shard.num_rows, "embedded": embedded}

    def _vectors(self, shard: pa.Table) -> NDArray[Any]:
        vectors = np.empty((shard.num_rows, self.teacher.dimension), self._dtype)
        known = pc.is_valid(shard["base_id"]).to_numpy()
        vectors[known] = self._base[shard["base_id"].drop_null().to_numpy()]
        fresh = np.flatnonzero(~known)
        for start in range(0, len(fresh), SLICE_ROWS):
            rows = fresh[start : start + SLICE_ROWS]
            vectors[rows] = self.encode(shard["phrase"].take(pa.array(rows)).to_pylist())
        return vectors
