"""A training from its command to its checkpoint: prepare, train or go on, export. A recipe says what."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors.torch import load_file
from torch import Tensor

from cellular.config import Settings
from cellular.errors import CellularError
from cellular.files import find_inputs, write_atomically
from cellular.training.config import TrainingConfig
from pipelines.cluster import connected, has_gpus, plain_errors
from pipelines.plan import check_writable
from pipelines.progress import Track, show
from pipelines.shard_files import read_shards
from pipelines.training import NAME, Training, fit
from pipelines.training_data import TrainingData
from pipelines.training_log import METRICS, SPEED, read_metrics
from pipelines.training_worker import Work
from pipelines.workspace import locked

IDENTITY, REPORT = "training.json", "report.json"
CHECKPOINT = "checkpoint"  # folder of what was trained in the target

Config = TypeVar("Config", bound=TrainingConfig)


class TrainReport(Settings):
    """What a training came to."""

    path: Path | None  # the exported checkpoint; None: the run ended before the training did
    steps: int
    seconds: float
    examples: int
    loss: float
    held_out_before: float | None
    held_out_after: float | None
    per_second: float  # tokens, embeddings: whatever a batch consists of
    mfu: float | None


@dataclass(frozen=True)
class Data:
    """Prepared data.

    Args:
        identity: equal for equal data.
        examples: how many there are to learn from.
        facts: plain values that workers need, and that checkpoints keep.
        shards: Parquet files of the datasets `train` and `held_out`.
        columns: of them that are read.
    """

    identity: str
    examples: int
    facts: dict[str, Any]
    shards: Mapping[str, Sequence[Path]]
    columns: Sequence[str]

    @classmethod
    def of(cls, texts: TrainingData, folder: Path, columns: Sequence[str]) -> "Data":
        """Texts and their embeddings, prepared in a folder."""
        shards = {"train": texts.shards, "held_out": texts.held_out}
        return cls(
            identity=texts.build,
            examples=texts.rows,
            facts={"teacher": texts.teacher.model_dump(), "dimension": texts.dimension, "build": texts.build},
            shards={name: [folder / shard for shard in paths] for name, paths in shards.items()},
            columns=columns,
        )


@dataclass(frozen=True)
class Trained:
    """What is exported.

    Args:
        weights: their averages where there are any, by name.
        facts: those of the data.
        origin: figures, command and commit, for people.
        curve: the metrics over the training.
    """

    weights: dict[str, Tensor]
    facts: dict[str, Any]
    origin: dict[str, Any]
    curve: list[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """What one kind of training adds to `run`.

    Args:
        config: what was asked for, with paths that mean the same on every worker.
        work: what the workers do.
        prepare: makes the data, goes on making them, or finds them done; a Ray cluster is connected.
        export: writes what was trained into a folder.
        decides: the settings that decide what is learned, as `include` of `model_dump`; in a target that
            holds a training with others nothing is trained.
    """

    config: TrainingConfig
    work: Work[Any]
    prepare: Callable[[], Data]
    export: Callable[[Path, Trained], None]
    decides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run(Generic[Config]):
    """What `run` is in every pipeline that trains.

    Args:
        recipe: makes what one kind of training adds, of its settings, with paths that mean the same on every
            worker; of whether other data in their place are discarded; and of what shows the progress.
    """

    recipe: Callable[[Config, bool, Track], Recipe]

    def __call__(
        self,
        config: Config,
        *,
        restart: bool = False,
        run_seconds: float | None = None,
        origin: dict[str, str] | None = None,
        track: Track = show,
    ) -> TrainReport:
        """Train, or go on with the training that was interrupted.

        Args:
            config: what to train.
            restart: discard a training in the target.
            run_seconds: end this run then, with a checkpoint; the same call goes on.
            origin: facts for the model card, such as the command and the commit.
            track: shows the progress of preparing the data.

        Raises:
            CellularError: something is wrong with the data, the settings or the target.
        """
        recipe = self.recipe(_absolute(config), restart and config.data_folder is None, track)
        find_inputs(config.data.corpus)  # a wrong name is said before a cluster starts or a folder is made
        deadline = time.time() + run_seconds if run_seconds else None
        target = recipe.config.target
        check_writable(target)
        finished = target / REPORT
        with locked(target), nullcontext() if finished.exists() else connected(), plain_errors():
            data = recipe.prepare()
            _identify(recipe, data, restart)
            if finished.exists():
                return TrainReport.model_validate_json(finished.read_bytes())
            with connected():
                folder = fit(_training(recipe, data, deadline))
        if folder is None:
            raise CellularError(f"the training in {target} left no checkpoint: add --restart")
        return _finish(recipe, data, folder, origin or {})


def data_folder(config: TrainingConfig) -> Path:
    """Where the data of a training are prepared."""
    return config.data_folder or config.target / "data"


def _absolute(config: Config) -> Config:
    """The same with a target and a folder of data that mean the same on every worker."""
    paths = {name: getattr(config, name) for name in ("target", "data_folder")}
    return config.model_copy(
        update={name: path.expanduser().absolute() for name, path in paths.items() if path}
    )


def _identify(recipe: Recipe, data: Data, restart: bool) -> None:
    """See that the target holds this training or none.

    Raises:
        CellularError: it holds another.
    """
    target = recipe.config.target
    include = {"optimizer": True, "schedule": True, **recipe.decides}
    content = json.dumps(
        [data.identity, recipe.config.model_dump(mode="json", include=include)], sort_keys=True
    )
    identity = json.dumps({"training": hashlib.sha256(content.encode()).hexdigest()[:32]}).encode()
    path = target / IDENTITY
    if restart or not path.exists():
        shutil.rmtree(target / NAME, ignore_errors=True)
        for name in (METRICS, REPORT):
            (target / name).unlink(missing_ok=True)
        write_atomically(path, identity)
    elif path.read_bytes() != identity:
        raise CellularError(
            f"{target} holds a training with other settings or data: "
            "repeat its command to go on with it, or add --restart to discard it"
        )


def _training(recipe: Recipe, data: Data, deadline: float | None) -> Training:
    config = recipe.config
    on_gpu = has_gpus() if config.workers.gpu is None else config.workers.gpu
    return Training(
        target=config.target,
        loop=recipe.work.run,
        settings={"config": config.model_dump(mode="json"), "facts": data.facts, "deadline": deadline},
        datasets={name: read_shards(files, data.columns) for name, files in data.shards.items() if files},
        workers=config.workers.model_copy(update={"gpu": on_gpu}),
        keep=config.loop.keep_checkpoints,
    )


def _finish(recipe: Recipe, data: Data, folder: Path, origin: dict[str, str]) -> TrainReport:
    """Report on the last checkpoint; if it is the end of the training, export what was trained."""
    target = recipe.config.target
    state = json.loads((folder / "state.json").read_text("utf-8"))
    metrics = state["metrics"]
    report = TrainReport(
        path=target / CHECKPOINT if state["finished"] else None,
        steps=state["steps"],
        seconds=state["seconds"],
        examples=data.examples,
        loss=metrics["loss"],
        held_out_before=state["held_out"].get("before"),
        held_out_after=state["held_out"].get("after"),
        per_second=next(value for name, value in metrics.items() if name.endswith(SPEED)),
        mfu=metrics["mfu"],
    )
    if report.path:
        weights = load_file(folder / "weights.safetensors") | load_file(folder / "average.safetensors")
        figures = origin | report.model_dump(mode="json", exclude={"path"})
        recipe.export(report.path, Trained(weights, data.facts, figures, read_metrics(target)))
        write_atomically(target / REPORT, report.model_dump_json().encode())
    return report
