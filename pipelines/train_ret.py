"""Train RET: prepare the data, run the loop on the workers, export the decoder with its model card."""

import hashlib
import json
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray
import ray.data
from safetensors.torch import load_file

from cellular.checkpoint_files import find_checkpoint
from cellular.config import Settings
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo, load_checkpoint
from cellular.decoders.ret.checkpoint import save_checkpoint as export
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.files import write_atomically
from cellular.training.config import TrainRETConfig
from pipelines.cluster import connected, plain_errors
from pipelines.model_card import model_card
from pipelines.plan import check_writable
from pipelines.progress import Track, show
from pipelines.ret_worker import train_worker
from pipelines.training import NAME, Training, fit
from pipelines.training_data import TrainingData, prepare, read_shards
from pipelines.training_log import METRICS, read_metrics
from pipelines.workspace import locked

IDENTITY, REPORT = "training.json", "report.json"
CHECKPOINT = "checkpoint"  # folder of the exported decoder in the target
DIMENSIONS = (384, 768)


class TrainReport(Settings):
    """What a training came to."""

    path: Path | None  # the exported decoder; None: the run ended before the training did
    steps: int
    seconds: float
    texts: int
    loss: float
    held_out_before: float | None
    held_out_after: float | None
    tokens_per_second: float
    mfu: float | None


def run(
    config: TrainRETConfig,
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
    deadline = time.time() + run_seconds if run_seconds else None
    config = _absolute(config)
    base = load_checkpoint(config.base) if config.base else None
    check_writable(config.target)
    finished = config.target / REPORT
    with locked(config.target), nullcontext() if finished.exists() else connected(), plain_errors():
        data = prepare(
            config.data,
            config.data_folder or config.target / "data",
            config.embedding,
            restart=restart and config.data_folder is None,
            accept=lambda fingerprint, dimension: _check_teacher(config, base, fingerprint, dimension),
            track=track,
        )
        _identify(config, data, restart)
        if finished.exists():
            return TrainReport.model_validate_json(finished.read_bytes())
        with connected():
            folder = fit(_training(config, data, deadline))
    if folder is None:
        raise CellularError(f"the training in {config.target} left no checkpoint: add --restart")
    return _finish(config, data, folder, origin or {})


def _absolute(config: TrainRETConfig) -> TrainRETConfig:
    """Paths that mean the same on every worker; the pieces of the base."""
    changes: dict[str, Any] = {"target": config.target.expanduser().absolute()}
    if config.data_folder:
        changes["data_folder"] = config.data_folder.expanduser().absolute()
    if config.base:
        folder = find_checkpoint(config.base).absolute()
        changes["base"] = str(folder)
        changes["data"] = config.data.model_copy(update={"vocabulary": folder / "vocabulary.json"})
    return config.model_copy(update=changes)


def _check_teacher(config: TrainRETConfig, base: Checkpoint | None, fingerprint: str, dimension: int) -> None:
    if dimension not in DIMENSIONS:
        raise CellularError(
            f"teacher {config.data.teacher.name} gives {dimension} numbers: RET reads 384 or 768"
        )
    if base and not config.only and fingerprint != base.teacher.fingerprint:
        raise CellularError(
            f"{config.base} reads {base.teacher.name} ({base.teacher.fingerprint}), not "
            f"{config.data.teacher.name} ({fingerprint}): add --only projection to give it another teacher"
        )


def _identify(config: TrainRETConfig, data: TrainingData, restart: bool) -> None:
    """See that the target holds this training or none.

    Raises:
        CellularError: it holds another.
    """
    what = {
        "base",
        "only",
        "applications",
        "precision",
        "sparsity",
        "variation",
        "reward",
        "optimizer",
        "schedule",
    }
    settings = config.model_dump(mode="json", include=what)
    settings["loop"] = config.loop.model_dump(include={"batch_tokens", "seed"})
    content = json.dumps([data.build, settings], sort_keys=True)
    identity = json.dumps({"training": hashlib.sha256(content.encode()).hexdigest()[:32]}).encode()
    path = config.target / IDENTITY
    if restart or not path.exists():
        shutil.rmtree(config.target / NAME, ignore_errors=True)
        for name in (METRICS, REPORT):
            (config.target / name).unlink(missing_ok=True)
        write_atomically(path, identity)
    elif path.read_bytes() != identity:
        raise CellularError(
            f"{config.target} holds a training with other settings or data: "
            "repeat its command to go on with it, or add --restart to discard it"
        )


def _training(config: TrainRETConfig, data: TrainingData, deadline: float | None) -> Training:
    folder = config.data_folder or config.target / "data"
    gpus: float = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
    on_gpu = gpus > 0 if config.workers.gpu is None else config.workers.gpu
    workers = config.workers.model_copy(update={"gpu": on_gpu})
    return Training(
        target=config.target,
        loop=train_worker,
        settings={
            "config": config.model_dump(mode="json"),
            "dimension": data.dimension,
            "facts": {"teacher": data.teacher.model_dump(), "data": data.build},
            "deadline": deadline,
        },
        datasets={
            name: read_shards([folder / shard for shard in shards])
            for name, shards in (("train", data.shards), ("held_out", data.held_out))
            if shards
        },
        workers=workers,
        keep=config.loop.keep_checkpoints,
    )


def _finish(config: TrainRETConfig, data: TrainingData, folder: Path, origin: dict[str, str]) -> TrainReport:
    """Report on the last checkpoint; if it is the end of the training, export the decoder."""
    facts = json.loads((folder / "state.json").read_text("utf-8"))
    metrics = facts["metrics"]
    report = TrainReport(
        path=config.target / CHECKPOINT if facts["finished"] else None,
        steps=facts["steps"],
        seconds=facts["seconds"],
        texts=data.rows,
        loss=metrics["loss"],
        held_out_before=facts["held_out"].get("before"),
        held_out_after=facts["held_out"].get("after"),
        tokens_per_second=metrics["tokens_per_second"],
        mfu=metrics["mfu"],
    )
    if report.path:
        _export(config, data, folder, report.path, origin, report.model_dump(mode="json", exclude={"path"}))
        write_atomically(config.target / REPORT, report.model_dump_json().encode())
    return report


def _export(
    config: TrainRETConfig,
    data: TrainingData,
    folder: Path,
    path: Path,
    origin: dict[str, str],
    figures: dict[str, Any],
) -> None:
    weights = load_file(folder / "weights.safetensors") | load_file(folder / "average.safetensors")
    base = load_checkpoint(config.base) if config.base else None
    model = RET(RETConfig(embedding_dimension=data.dimension, applications=applications(config, base)))
    model.load_state_dict(weights)
    checkpoint = Checkpoint(
        model=model,
        vocabulary=Vocabulary.from_file(config.data.vocabulary)
        if config.data.vocabulary
        else Vocabulary.load(),
        teacher=TeacherInfo(
            name=data.teacher.name, fingerprint=data.teacher.fingerprint, dimension=data.dimension
        ),
        training={**origin, **figures},
        precision=config.precision,
    )
    export(path, checkpoint, model_card(config, checkpoint, read_metrics(config.target)))


def applications(config: TrainRETConfig, base: Checkpoint | None) -> int:
    """Of the layer: as set, else as the base has them, else the default."""
    default = base.model.config if base else RETConfig()
    return config.applications or default.applications
