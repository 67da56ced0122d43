"""The page that goes with what was trained."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from cellular.adapter import UniversalAdapter
from cellular.decoders.ret.checkpoint import Checkpoint
from cellular.lattice import Lattice3D
from cellular.training.adapter_config import TrainAdapterConfig
from cellular.training.config import TrainRETConfig
from cellular.training.lattice_config import TrainLatticeConfig
from pipelines.training_log import SPEED

POINTS = 20  # of the curve
_RET_SETTINGS = {"optimizer", "schedule", "variation", "sparsity", "only", "reward"}
_LATTICE_SETTINGS = dict.fromkeys(
    ("pairs", "lattice", "forget", "damage", "loss", "optimizer", "schedule"), True
) | {"loop": {"batch", "pass_rows", "compile", "graphs", "seed"}}
COLUMNS = ("step", "seconds", "loss", "held_out_loss", SPEED, "mfu")


def ret_card(config: TrainRETConfig, checkpoint: Checkpoint, curve: Sequence[dict[str, Any]]) -> str:
    """Markdown: what it reads, what it was trained on and how, its curve and its figures."""
    teacher, shape, facts = checkpoint.teacher, checkpoint.model.config, checkpoint.training
    sources = ", ".join(source.rpartition("/")[2] for source in config.data.corpus.inputs)
    return f"""# RET v2.1 for {teacher.name}

{checkpoint.model._count_parameters():,} parameters that write the text of an embedding.

| | |
|---|---|
| teacher | {teacher.name}, {teacher.dimension} numbers, `{teacher.fingerprint}` |
| applications of the layer | {shape.applications} |
| weights stored as | {checkpoint.precision} |
| training data | {facts["examples"]:,} unique texts of {config.data.min_characters} to \
{config.data.max_characters} characters from {sources} |
| steps, seconds | {facts["steps"]:,}, {facts["seconds"]:,.0f} |
| command | `{facts.get("command", "")}` |
| code | {facts.get("commit", "")} |

## Curve
Losses in nats a piece; `held_out_loss` is the averaged weights' on texts that are not trained on.

{curve_table(curve)}

## Settings
```json
{config.model_dump_json(indent=1, include=_RET_SETTINGS)}
```
"""


def lattice_card(
    config: TrainLatticeConfig,
    model: nn.Module,
    data: dict[str, Any],
    facts: dict[str, Any],
    curve: Sequence[dict[str, Any]],
) -> str:
    """Markdown: what a lattice, or the MLP beside it, reads and gives, and how it was trained."""
    teacher = data["teacher"]
    sources = ", ".join(source.rpartition("/")[2] for source in config.data.corpus.inputs)
    parameters = sum(weight.numel() for weight in model.parameters())
    kinds = {"lattice": "3D lattice of cells", "mlp": "MLP"}
    if isinstance(model, Lattice3D):  # of a base, it is the base's
        config = config.model_copy(update={"lattice": model.config})
    settings = config.model_dump_json(indent=1, include=_LATTICE_SETTINGS)
    return f"""# {kinds[config.model]} for {teacher["name"]}: {config.objective}

{parameters:,} parameters from an embedding to an embedding.

| | |
|---|---|
| teacher | {teacher["name"]}, {data["dimension"]} numbers, `{teacher["fingerprint"]}` |
| objective | {config.objective}{f", with up to {config.history} earlier texts" if config.history else ""} |
| training data | {facts["examples"]:,} {"groups of texts" if config.pairs else "texts"} from {sources} |
| steps, seconds | {facts["steps"]:,}, {facts["seconds"]:,.0f} |
| command | `{facts.get("command", "")}` |
| code | {facts.get("commit", "")} |

## Curve
`held_out_loss` is the averaged weights' on texts that are not trained on.

{curve_table(curve)}

## Settings
```json
{settings}
```
"""


def adapter_card(
    config: TrainAdapterConfig, adapter: UniversalAdapter, curve: Sequence[dict[str, Any]]
) -> str:
    """Markdown: what an adapter maps, and how it was trained."""
    source, target, facts = adapter.source, adapter.target, adapter.training
    files = ", ".join(file.rpartition("/")[2] for file in config.data.corpus.inputs)
    return f"""# Adapter from {source.name} to {target.name}

{adapter.parameters:,} parameters that give embeddings of one teacher as another would, and back.

| | |
|---|---|
| source | {source.name}, {source.dimension} numbers, `{source.fingerprint}` |
| target | {target.name}, {target.dimension} numbers, `{target.fingerprint}` |
| strategy | {adapter.strategy} |
| weights stored as | float16 |
| training data | {facts["examples"]:,} unique texts of {config.data.min_characters} to \
{config.data.max_characters} characters from {files} |
| steps, seconds | {facts["steps"]:,}, {facts["seconds"]:,.0f} |
| command | `{facts.get("command", "")}` |
| code | {facts.get("commit", "")} |

## Curve
The first `held_out_loss` is that of the ridge in closed form, from which training starts.

{curve_table(curve)}

## Settings
```json
{config.model_dump_json(indent=1, include={"strategy", "width", "contrast", "optimizer", "schedule"})}
```
"""


def curve_table(curve: Sequence[dict[str, Any]]) -> str:
    """Some points of a curve as a table in Markdown, the last among them."""
    spacing = max(1, -(-len(curve) // POINTS))
    chosen = [*curve[::-1][::spacing][::-1]]
    names = [name for column in COLUMNS for name in _names(column, curve)]
    rows = [" | ".join(_cell(metrics.get(name)) for name in names) for metrics in chosen]
    header = [" | ".join(names), " | ".join("---:" for _ in names)]
    return "\n".join(f"| {row} |" for row in (*header, *rows))


def _names(column: str, curve: Sequence[dict[str, Any]]) -> list[str]:
    """The metric of a column; a speed has the name of its unit."""
    if column != SPEED:
        return [column]
    return sorted({name for metrics in curve for name in metrics if name.endswith(SPEED)})


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
