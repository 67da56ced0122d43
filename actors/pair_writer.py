"""From a file of texts to shards of pairs: which go together, and their pieces."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.files import Format, open_file, open_stream
from cellular.training.pairs import COLUMNS, Found, find_pairs
from cellular.training.text_to_text_config import PairDataConfig

TRAIN, HELD_OUT = "train", "held_out"  # shards' names begin with

_READ: dict[Format, Callable[[str], pa.Table]] = {
    "parquet": lambda uri: pq.read_table(open_file(uri)),
    "jsonl": lambda uri: pyarrow.json.read_json(open_stream(uri)),
    "csv": lambda uri: pyarrow.csv.read_csv(open_stream(uri)),
}


class PairWriter:
    """Turns a file into a folder of shards.

    A source is held out in all its pairs or in none, whatever file it is in.

    Args:
        config: which pairs.
    """

    def __init__(self, config: PairDataConfig) -> None:
        self._config = config
        self._vocabulary = Vocabulary.from_file(config.vocabulary) if config.vocabulary else Vocabulary.load()

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write the pairs of file `uri`, of `format`, as shards into folder `output`, all at once.

        Raises:
            CellularError: the file cannot be read.
        """
        try:
            table = _READ[item["format"]](item["uri"])
        except (OSError, pa.ArrowException) as error:
            raise CellularError(f"cannot read {item['uri']}: {error}") from error
        output = Path(item["output"])
        unfinished = output.with_name(f".{output.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        counts = {name: self._write(part, unfinished, name) for name, part in self._split(table).items()}
        unfinished.rename(output)
        return {"phrases": sum(counts.values())}

    def _split(self, table: pa.Table) -> dict[str, pa.Table]:
        """All pairs of a file in an order of their own: those to learn, and those held out."""
        parts = [
            self._pairs(number, find_pairs(table, self._config.corpus.text_column, task.pairs))
            for number, task in enumerate(self._config.tasks.values())
        ]
        pairs = pa.concat_tables(parts)
        pairs = pairs.take(np.random.default_rng(0).permutation(len(pairs)))
        held_out = pairs["held_out"]
        return {HELD_OUT: pairs.filter(held_out), TRAIN: pairs.filter(pc.invert(held_out))}

    def _pairs(self, task: int, found: Found) -> pa.Table:
        """Those of one task that are within the limits of length."""
        least, most = self._config.min_characters, self._config.max_characters
        usable = np.array([least <= len(text) <= most for text in found.texts], bool)
        kept = usable[found.sources] & usable[found.targets]
        sources, targets = found.sources[kept], found.targets[kept]
        pieces = pa.array((ids.tobytes() for ids in self._vocabulary.encode_batch(found.texts)), pa.binary())
        share = self._config.held_out
        held_out = np.array([_place(text) < share for text in found.texts], bool)[sources]
        columns = pieces.take(sources), pieces.take(targets), np.full(len(sources), task, np.uint8)
        return pa.table({**dict(zip(COLUMNS, columns, strict=True)), "held_out": held_out})

    def _write(self, pairs: pa.Table, folder: Path, name: str) -> int:
        for number, shard in enumerate(_shards(pairs.select(COLUMNS), self._config.shard_rows)):
            path = folder / f"{name}-{number:04d}.parquet"
            pq.write_table(shard, path, compression="zstd", use_dictionary=False)
        return len(pairs)


def readable(format: Format) -> bool:
    """Whether files of a format have columns that say which texts go together."""
    return format in _READ


def _place(text: str) -> float:
    """A number in [0, 1) that only the text decides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / (1 << 32)


def _shards(pairs: pa.Table, rows: int) -> Iterator[pa.Table]:
    """Parts of about equal size, of `rows` at most."""
    count = -(-len(pairs) // rows)
    edges = [len(pairs) * number // max(count, 1) for number in range(count + 1)]
    return (pairs.slice(first, last - first) for first, last in pairwise(edges))
