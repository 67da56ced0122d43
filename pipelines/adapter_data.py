"""From texts with the target's embeddings to pairs with the source's, and to the maps in closed form."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ray.data import TaskPoolStrategy

from actors.pair_embedder import PairEmbedder, sum_pairs
from cellular.adapter import PairSums, Space, best_ridge, ridge, save_maps
from cellular.config import BuildConfig, Settings
from cellular.files import write_atomically
from cellular.training.adapter_config import TrainAdapterConfig
from pipelines.cluster import connected, plain_errors
from pipelines.plan import describe_teacher
from pipelines.progress import Row, Track
from pipelines.stages import Stage, run_stage, teacher_pool
from pipelines.training_data import TrainingData

FORMAT = 1
MANIFEST, START = "pairs.json", "start.safetensors"
SUMMED = 16  # shards summed by one task
PENALTY = 1e-3  # of the ridge, where no pairs are held out to choose it by


class PairData(Settings):
    """The manifest of pairs; paths are relative to its folder."""

    format: int = FORMAT
    source: Space
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def pairs_folder(config: TrainAdapterConfig, data: TrainingData, folder: Path) -> Path:
    """Where the pairs of prepared texts and a source teacher lie."""
    content = json.dumps([FORMAT, config.source.model_dump(include={"name", "precision"})])
    return folder / data.build / f"pairs-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def prepare_pairs(config: TrainAdapterConfig, data: TrainingData, folder: Path, track: Track) -> PairData:
    """Make the pairs of prepared texts, go on with that, or find it done.

    Args:
        config: names the source teacher, and says who embeds.
        data: texts with the target's embeddings.
        folder: of the data.
        track: shows the progress.

    Raises:
        CellularError: the teacher cannot be loaded.
    """
    target = pairs_folder(config, data, folder)
    manifest = target / MANIFEST
    if manifest.exists():
        return PairData.model_validate_json(manifest.read_bytes())
    with connected(), plain_errors():
        source = _describe(config, folder)
        stages = {
            name: _embedding(config, [folder / shard for shard in shards], target / name)
            for name, shards in (("train", data.shards), ("held_out", data.held_out))
        }
        for stage in stages.values():
            list(run_stage(stage, track))
        sums = {
            name: _sum(config, stage.items, target / "sums" / name, track) for name, stage in stages.items()
        }
    _write_start(target / START, sums["train"], sums["held_out"])
    outputs = {name: _names(stage.items, target) for name, stage in stages.items()}
    pairs = PairData(source=source, train=outputs["train"], held_out=outputs["held_out"])
    write_atomically(manifest, pairs.model_dump_json(indent=1).encode())
    return pairs


def _names(items: Sequence[Row], target: Path) -> tuple[str, ...]:
    return tuple(str(Path(item["output"]).relative_to(target)) for item in items)


def _describe(config: TrainAdapterConfig, folder: Path) -> Space:
    fingerprint, dimension = describe_teacher(
        BuildConfig(
            corpus=config.data.corpus, target=folder, teacher=config.source, resources=config.embedding
        )
    )
    return Space(name=Path(config.source.name).name, fingerprint=fingerprint, dimension=dimension)


def _embedding(config: TrainAdapterConfig, shards: Sequence[Path], target: Path) -> Stage:
    """Shards of texts become shards of pairs of the same names."""
    target.mkdir(parents=True, exist_ok=True)
    items = [{"texts": str(shard), "output": str(target / shard.name)} for shard in shards]
    options = {
        "fn_constructor_kwargs": {"teacher": config.source},
        **teacher_pool(config.embedding, config.source, len(shards)),
    }
    return Stage(f"embed {target.name}", PairEmbedder, items, options)


def _sum(config: TrainAdapterConfig, pairs: Sequence[Row], target: Path, track: Track) -> PairSums | None:
    """What a closed form needs to know of all pairs; None of none."""
    target.mkdir(parents=True, exist_ok=True)
    paths = [row["output"] for row in pairs]
    items: list[Row] = [
        {"pairs": paths[first : first + SUMMED], "output": str(target / f"{first:06d}.safetensors")}
        for first in range(0, len(paths), SUMMED)
    ]
    resources = config.embedding
    options = {"compute": TaskPoolStrategy(resources.tasks), "num_cpus": resources.task_cpus}
    work: Callable[[Row], Row] = sum_pairs
    list(run_stage(Stage(f"sum {target.name}", work, items, options), track))
    return PairSums.total(PairSums.load(Path(item["output"])) for item in items) if items else None


def _write_start(path: Path, train: PairSums | None, held_out: PairSums | None) -> None:
    """The ridge each way."""
    assert train is not None  # data are never without a shard
    if held_out is None:
        there, back = ridge(train, PENALTY), ridge(train.reversed, PENALTY)
    else:
        there, back = best_ridge(train, held_out), best_ridge(train.reversed, held_out.reversed)
    save_maps(path, there, back)
