"""From files of texts to pairs that text to text learns. Interrupted, it goes on; no teacher is asked."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from ray.data import TaskPoolStrategy

from actors.pair_writer import HELD_OUT, TRAIN, PairWriter, readable
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.documents import check_columns
from cellular.errors import CellularError
from cellular.files import InputFile, find_inputs
from cellular.training.pairs import COLUMNS
from cellular.training.text_to_text_config import PairDataConfig
from pipelines.cluster import connected
from pipelines.plan import check_writable
from pipelines.progress import Track
from pipelines.stages import Stage, run_stage
from pipelines.training_run import Data
from pipelines.workspace import locked

FORMAT = 1


def prepare_pairs(config: PairDataConfig, folder: Path, *, restart: bool, track: Track) -> Data:
    """Prepare pairs in a folder, go on with it, or find it done.

    Args:
        config: which pairs.
        folder: where, on a file system that every node sees.
        restart: replace other pairs in the folder.
        track: shows the progress.

    Raises:
        CellularError: something is wrong with the input or the folder, or there is no pair.
    """
    check_writable(folder)
    files = _files(config)
    identity = _identity(config, files)
    with locked(folder):
        others = [path for path in folder.glob("pairs-*") if path.name != f"pairs-{identity}"]
        if others and not restart:
            raise CellularError(f"{folder} holds other pairs: name another folder, or add --restart")
        for path in others:
            shutil.rmtree(path)
        space = folder / f"pairs-{identity}"
        space.mkdir(exist_ok=True)
        stage = _stage(config, files, space)
        with connected():
            list(run_stage(stage, track))
    shards = {name: sorted(space.glob(f"*/{name}-*.parquet")) for name in (TRAIN, HELD_OUT)}
    pairs = sum(pq.read_metadata(path).num_rows for path in shards[TRAIN])
    if not pairs:
        raise CellularError("no pair is left: give more texts, or other limits of length")
    return Data(identity=identity, examples=pairs, facts={"build": identity}, shards=shards, columns=COLUMNS)


def _files(config: PairDataConfig) -> list[InputFile]:
    files = find_inputs(config.corpus)
    check_columns(files, config.corpus)
    for file in files:
        if not readable(file.format):
            raise CellularError(
                f"{file.uri} is {file.format}: pairs are read from Parquet, JSON lines or CSV"
            )
    return files


def _identity(config: PairDataConfig, files: Sequence[InputFile]) -> str:
    """Equal for equal pairs; how often a pair is learned is not part of it."""
    settings = config.model_dump(mode="json", exclude={"vocabulary"})
    settings["corpus"].pop("inputs")
    for task in settings["tasks"].values():
        task.pop("weight")
    vocabulary = Vocabulary.from_file(config.vocabulary) if config.vocabulary else Vocabulary.load()
    content = [
        FORMAT,
        settings,
        list(settings["tasks"]),
        vocabulary.fingerprint,
        [asdict(file) for file in files],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _stage(config: PairDataConfig, files: Sequence[InputFile], space: Path) -> Stage:
    """A file an item: a group's rows are in one file."""
    items = [
        {"uri": file.uri, "format": file.format, "output": str(space / f"{number:06d}")}
        for number, file in enumerate(files)
    ]
    return Stage("pair", PairWriter(config), items, {"compute": TaskPoolStrategy(), "num_cpus": 1.0})
