"""From files of embeddings to files of texts, part by part. Interrupted, it goes on."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from actors.part_decoder import ANSWERS, PLACES, PartDecoder, read_counts
from cellular.bank import current_version
from cellular.checkpoint_files import find_checkpoint, weights_fingerprint
from cellular.config import DecodeCorpusConfig, Settings
from cellular.decoders import default_bank_path
from cellular.decoders.opening import DecodeOptions, gains_by_gpu, open_decoder
from cellular.decoders.ret import DEFAULT_CHECKPOINT
from cellular.embedding_sources import EMBEDDING, find_embeddings, open_source
from cellular.errors import CellularError
from cellular.files import write_atomically
from cellular.queries import open_lattice
from pipelines.cluster import connected, gpus_each, plain_errors, resources
from pipelines.plan import check_writable
from pipelines.progress import Track, show
from pipelines.stages import Stage, pool, run_stage
from pipelines.workspace import build_folder, locked, read_left

PARTS = 256  # a job has about so many, between these sizes
PART_ROWS = (1_024, 65_536)
REPORT = "report.json"
RESOURCES = {"target", "workers", "worker_cpus", "worker_gpus", "part_rows"}  # settings that decide no text


class DecodeReport(Settings):
    """What a job made."""

    path: Path
    files: int  # that were read
    texts: int
    rejected: dict[str, int] = Field(default_factory=dict)  # rows that hold no embedding, by reason
    resumed: int = 0  # texts that an earlier, interrupted run had written
    seconds: float = 0.0
    up_to_date: bool = False  # nothing was to be done
    job: str  # fingerprint of settings and inputs


class DecodePlan(Settings):
    """What a job will do, fixed before it starts; when it goes on, it follows that.

    A part is a file, its first row, and the row behind its last.
    """

    job: str
    files: int
    parts: tuple[tuple[str, int, int], ...]


def run(config: DecodeCorpusConfig, *, restart: bool = False, track: Track = show) -> DecodeReport:
    """Decode files of embeddings into Parquet files, or go on with the job that was interrupted.

    Each row of the inputs becomes one of the outputs, `part-*.parquet`: its file and row, what the decoder
    answers, and the columns that are kept.

    Args:
        config: what to decode, and how.
        restart: discard what the target holds.
        track: shows the progress.

    Raises:
        CellularError: something is wrong with the inputs, the decoder or the target; nothing was decoded.
    """
    config = config.model_copy(update=_absolute(config))
    target = config.target
    check_writable(target)
    with locked(target):
        if restart:
            _discard(target)
        plan = _plan(config)
        report, begun = read_left(DecodeReport, target / REPORT), read_left(DecodePlan, _plan_path(target))
        there = report or begun
        if there and there.job != plan.job:
            raise CellularError(f"{target} holds the texts of another job: name another, or add --restart")
        if report:
            return report.model_copy(update={"up_to_date": True})
        plan = begun or plan  # to the letter: its parts are those that are there
        write_atomically(_plan_path(target), plan.model_dump_json().encode())
        report = _decode(config, plan, track)
        write_atomically(target / REPORT, report.model_dump_json(indent=1).encode())
        _plan_path(target).unlink()
    return report


def _absolute(config: DecodeCorpusConfig) -> dict[str, Any]:
    """Paths as workers find them, whose working folder is another."""
    folders = {name: getattr(config, name) for name in ("checkpoint", "lattice")}
    found = {
        name: str(Path(path).absolute()) for name, path in folders.items() if path and Path(path).is_dir()
    }
    paths = {name: getattr(config, name) for name in ("target", "bank")}
    return found | {name: path.expanduser().absolute() for name, path in paths.items() if path}


def _plan(config: DecodeCorpusConfig) -> DecodePlan:
    """Check everything that can be wrong, and divide the inputs."""
    own = {*PLACES.names, *ANSWERS.names}
    if taken := [name for name in config.keep if name in own]:
        raise CellularError(f"cannot keep a column {taken[0]!r}: the texts have one of their own")
    opened = open_decoder(config.decoder, DecodeOptions.of(config))
    if config.lattice:
        open_lattice(config.lattice, opened.fingerprint)
    files = find_embeddings(config.inputs)
    sources = [open_source(file, (EMBEDDING, *config.keep)) for file in files]
    for file, source in zip(files, sources, strict=True):
        if source.dimension not in (None, opened.dimension):
            numbers = f"{source.dimension} numbers, where {config.decoder} reads {opened.dimension}"
            raise CellularError(f"{file} holds embeddings of {numbers}")
    least, most = PART_ROWS
    rows = config.part_rows or min(max(sum(source.rows for source in sources) // PARTS, least), most)
    return DecodePlan(
        job=_fingerprint(config, files),
        files=len(files),
        parts=tuple(
            (str(file), start, min(start + rows, source.rows))
            for file, source in zip(files, sources, strict=True)
            for start in range(0, source.rows, rows)
        ),
    )


def _fingerprint(config: DecodeCorpusConfig, files: Sequence[Path]) -> str:
    """Of everything that decides the texts: settings, weights, the bank's version, the inputs as they are."""
    writer = config.checkpoint or DEFAULT_CHECKPOINT if config.decoder != "phrase_bank" else None
    bank = config.bank or default_bank_path() if config.decoder != "ret" else None
    content = [
        config.model_dump(mode="json", exclude=RESOURCES),
        [weights_fingerprint(find_checkpoint(name)) for name in (writer, config.lattice) if name],
        bank and current_version(bank),
        [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _decode(config: DecodeCorpusConfig, plan: DecodePlan, track: Track) -> DecodeReport:
    began = time.perf_counter()
    outputs = [config.target / f"part-{number:06d}.parquet" for number in range(len(plan.parts))]
    resumed = sum(read_counts(output)[0] for output in outputs if output.exists())
    if not all(output.exists() for output in outputs):
        with connected(), plain_errors():
            list(run_stage(_stage(config, plan, outputs), track))
    counts = [read_counts(output) for output in outputs]
    return DecodeReport(
        path=config.target,
        files=plan.files,
        texts=sum(texts for texts, _ in counts),
        rejected=dict(sum((rejected for _, rejected in counts), Counter())),
        resumed=resumed,
        seconds=round(time.perf_counter() - began, 2),
        job=plan.job,
    )


def _stage(config: DecodeCorpusConfig, plan: DecodePlan, outputs: Sequence[Path]) -> Stage:
    """Parts of files become files of texts. Needs a cluster: its room decides how many workers there are."""
    items = [
        {"path": path, "start": start, "stop": stop, "output": str(output)}
        for (path, start, stop), output in zip(plan.parts, outputs, strict=True)
    ]
    gpus = gpus_each(config.worker_gpus, gains_by_gpu(config))
    options = {
        "fn_constructor_args": (config,),
        **pool(config.workers, resources(config.worker_cpus, gpus), len(items)),
    }
    return Stage("decode", PartDecoder, items, options, unit="texts")


def _plan_path(target: Path) -> Path:
    return build_folder(target) / "decoding.json"  # beside the plan of a bank, if the target is one


def _discard(target: Path) -> None:
    """Remove what was made, the report first: a half removed job is not taken for a finished one."""
    for path in (target / REPORT, _plan_path(target), *target.glob("part-*.parquet")):
        path.unlink(missing_ok=True)
