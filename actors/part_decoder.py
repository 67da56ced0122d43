"""A decoder as a worker on files of embeddings: parts of them become files of texts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cellular.config import DecodeCorpusConfig
from cellular.decoders.opening import Answer, DecodeOptions, open_decoder
from cellular.embedding_sources import EMBEDDING, Usable, open_source, readable, usable
from cellular.files import atomic_path
from cellular.queries import open_lattice
from cellular.types import FloatArray

SLICE_ROWS = 4_096  # decoded at once: a bounded share of memory
COUNTS = b"cellular.counts"  # in the metadata of each file: how many texts, and of what is none the reasons
PLACES = pa.schema({"file": pa.string(), "row": pa.int64()})
ANSWERS = pa.schema(
    {
        "text": pa.string(),  # null where a row holds no embedding
        "score": pa.float32(),  # cosine, where the decoder knows it
        "source": pa.string(),
        "reason": pa.string(),  # why there is no text, or another than was asked for
    }
)


class PartDecoder:
    """Holds one decoder, and the lattice before it if there is one.

    Args:
        config: of the job.

    Raises:
        CellularError: a part of the decoder is missing, damaged, or another teacher's.
    """

    def __init__(self, config: DecodeCorpusConfig) -> None:
        self._keep = tuple(dict.fromkeys(config.keep))
        self._decoder = open_decoder(config.decoder, DecodeOptions.of(config))
        self._through = open_lattice(config.lattice, self._decoder.fingerprint) if config.lattice else None

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write the texts of rows `start` to `stop` of the embeddings in `path` to the Parquet file `output`.

        A row that holds no embedding has no text, and the reason.
        """
        path, output = Path(item["path"]), Path(item["output"])
        read = [*dict.fromkeys((EMBEDDING, *self._keep))]
        with readable(path):
            table = open_source(path).read(item["start"], item["stop"], read)
            found = usable(table[EMBEDDING], self._decoder.dimension)
        rows = range(item["start"], item["start"] + len(table))
        places = pa.table({"file": [str(path)] * len(rows), "row": rows}, PLACES)
        columns = [*places.columns, *self._answers(found).columns, *map(table.column, self._keep)]
        texts = pa.table(columns, [*PLACES.names, *ANSWERS.names, *self._keep])
        counts = {"texts": len(found.rows), "rejected": Counter(filter(None, found.reasons))}
        texts = texts.replace_schema_metadata({COUNTS: json.dumps(counts)})
        with atomic_path(output) as temporary:
            pq.write_table(texts, temporary, compression="zstd")
        return {"texts": len(found.rows)}

    def _answers(self, found: Usable) -> pa.Table:
        """ANSWERS of all rows of a part."""
        answers: list[dict[str, Any]] = [{"reason": reason} for reason in found.reasons]
        for start in range(0, len(found.rows), SLICE_ROWS):
            some = slice(start, start + SLICE_ROWS)
            decoded = self._decode(found.embeddings[some])
            for row, answer in zip(found.rows[some].tolist(), decoded, strict=True):
                answers[row] = answer._asdict()
        return pa.Table.from_pylist(answers, ANSWERS)

    def _decode(self, embeddings: FloatArray) -> list[Answer]:
        return self._decoder.answer(self._through(embeddings) if self._through else embeddings)


def read_counts(output: Path) -> tuple[int, Counter[str]]:
    """How many texts a file that a PartDecoder wrote has, and how many rows have none, by reason."""
    counts = json.loads((pq.read_schema(output).metadata or {})[COUNTS])
    return counts["texts"], Counter(counts["rejected"])
