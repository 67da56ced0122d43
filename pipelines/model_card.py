"""The page that goes with a trained decoder."""

from collections.abc import Sequence
from typing import Any

from cellular.decoders.ret.checkpoint import Checkpoint
from cellular.training.config import TrainRETConfig

POINTS = 20  # of the curve
COLUMNS = ("step", "seconds", "loss", "held_out_loss", "tokens_per_second", "mfu")


def model_card(config: TrainRETConfig, checkpoint: Checkpoint, curve: Sequence[dict[str, Any]]) -> str:
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
| training data | {facts["texts"]:,} unique texts of {config.data.min_characters} to \
{config.data.max_characters} characters from {sources} |
| steps, seconds | {facts["steps"]:,}, {facts["seconds"]:,.0f} |
| command | `{facts.get("command", "")}` |
| code | {facts.get("commit", "")} |

## Curve
Losses in nats a piece; `held_out_loss` is the averaged weights' on texts that are not trained on.

{_table(curve)}

## Settings
```json
{config.model_dump_json(indent=1, include={"optimizer", "schedule", "variation", "sparsity", "only"})}
```
"""


def _table(curve: Sequence[dict[str, Any]]) -> str:
    spacing = max(1, -(-len(curve) // POINTS))
    chosen = [*curve[::-1][::spacing][::-1]]
    rows = [" | ".join(_cell(metrics.get(name)) for name in COLUMNS) for metrics in chosen]
    header = [" | ".join(COLUMNS), " | ".join("---:" for _ in COLUMNS)]
    return "\n".join(f"| {row} |" for row in (*header, *rows))


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
