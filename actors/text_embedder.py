"""The teacher as a worker on training data: it gives each text its embedding and its pieces."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.embedder import Embedder
from cellular.config import TeacherConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.training.shards import write_shard


class TextEmbedder(Embedder):
    """Turns shards of texts into shards of training data.

    Args:
        teacher: which model.
        vocabulary: file of the pieces; None: the packaged ones.
        held_out: share of each shard that is kept for the held-out loss. A shard is a random sample of the
            corpus in an order of its own, so that its last texts are as good as any.
    """

    def __init__(self, teacher: TeacherConfig, vocabulary: Path | None, held_out: float) -> None:
        super().__init__(teacher)
        self._vocabulary = Vocabulary.from_file(vocabulary) if vocabulary else Vocabulary.load()
        self._held_out = held_out

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write the texts of file `phrases` to `held_out` and to `output`, in this order."""
        with pa.memory_map(item["phrases"]) as file:
            texts: list[str] = pa.ipc.open_file(file).read_all()["phrase"].to_pylist()
        embeddings, pieces = self.encode(texts), self._vocabulary.encode_batch(texts)
        kept = round((1 - self._held_out) * len(texts))
        write_shard(Path(item["held_out"]), texts[kept:], pieces[kept:], embeddings[kept:])
        write_shard(Path(item["output"]), texts[:kept], pieces[:kept], embeddings[:kept])
        return {"phrases": len(texts)}
