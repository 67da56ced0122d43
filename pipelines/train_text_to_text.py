"""Train text to text: what it adds to a training, from its pairs to the model that is exported."""

from pathlib import Path
from typing import Any

from cellular.cct import CCT, TextToTextCheckpoint, save_text_to_text
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.training.text_to_text_config import TrainTextToTextConfig
from pipelines.model_card import curve_table
from pipelines.progress import Track
from pipelines.text_pairs import prepare_pairs
from pipelines.text_to_text_worker import TEXT_TO_TEXT_WORK
from pipelines.training_run import Recipe, Run, Trained, data_folder

DECIDES: dict[str, Any] = {
    "data": {"tasks"},
    "shape": True,
    "piece_drop": True,
    "loop": {"batch_tokens", "seed"},
}


def _recipe(config: TrainTextToTextConfig, restart: bool, track: Track) -> Recipe:
    return Recipe(
        config=config,
        work=TEXT_TO_TEXT_WORK,
        prepare=lambda: prepare_pairs(config.data, data_folder(config), restart=restart, track=track),
        export=lambda path, trained: _export(config, path, trained),
        decides=DECIDES,
    )


run = Run(_recipe)


def _export(config: TrainTextToTextConfig, path: Path, trained: Trained) -> None:
    model = CCT(config.network)
    model.load_state_dict(trained.weights)
    vocabulary = config.data.vocabulary
    checkpoint = TextToTextCheckpoint(
        model,
        Vocabulary.from_file(vocabulary) if vocabulary else Vocabulary.load(),
        trained.origin,
    )
    save_text_to_text(path, checkpoint, _card(config, checkpoint, trained.curve))


def _card(
    config: TrainTextToTextConfig, checkpoint: TextToTextCheckpoint, curve: list[dict[str, Any]]
) -> str:
    """Markdown: what it does, what it was trained on and how, its curve."""
    facts, parts = checkpoint.training, checkpoint.model.count_parameters()
    sources = ", ".join(source.rpartition("/")[2] for source in config.data.corpus.inputs)
    tasks = ", ".join(f"{name} x {task.weight}" for name, task in config.data.tasks.items())
    return f"""# Text to text

Reads a text, lets a 3D lattice of cells work on its embedding, and writes a text: \
{parts["all"]:,} parameters, no teacher and no bank.

| | |
|---|---|
| parameters | encoder {parts["encoder"]:,}, lattice {parts["lattice"]:,}, decoder {parts["decoder"]:,} |
| tasks | {tasks} |
| training data | {facts["examples"]:,} pairs of texts of {config.data.min_characters} to \
{config.data.max_characters} characters from {sources} |
| steps, seconds | {facts["steps"]:,}, {facts["seconds"]:,.0f} |
| command | `{facts.get("command", "")}` |
| code | {facts.get("commit", "")} |

## Curve
Losses in nats a piece, over all tasks; `held_out_loss` is the averaged weights' on texts that are held out.

{curve_table(curve)}

## Settings
```json
{config.model_dump_json(indent=1, include={"optimizer", "schedule", "piece_drop", "shape"})}
```
"""
