"""Pictures of a lattice at work: what a text changes in each cell, step by step.

A cell is as bright as its state differs from what it is in a lattice that is given nothing, on a logarithmic
scale: only what comes from the text is seen. The rule without Mamba's sweeps is drawn beside the whole.

Shapes: T steps, X, Y, Z cells along the axes, C channels, E embedding dimension.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cellular.lattice import Lattice3D, record_states
from cellular.types import FloatArray

RANGE = 300  # brightest to darkest; below that, and where nothing has arrived, a cell is black
FRAME_MS = 700
_COLOURS = matplotlib.colormaps["inferno"].with_extremes(bad="white")


def draw(lattice: Lattice3D, embedding_E: FloatArray, text: str, folder: Path) -> list[Path]:
    """Write a picture of all steps, one of each, and these as an animation.

    Args:
        lattice: set to evaluate.
        embedding_E: (E,) float32, of the text.
        text: for the titles.
        folder: made if need be.

    Returns:
        The files: steps.png, wave.gif, step_00.png and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = trace(lattice, embedding_E)
    frames = []
    for step in range(lattice.config.steps + 1):
        figure = _frame({name: bright_TXYZ[step] for name, bright_TXYZ in runs.items()})
        figure.suptitle(f"“{_short(text)}”: step {step} of {lattice.config.steps}")
        frames.append(folder / f"step_{step:02d}.png")
        figure.savefig(frames[-1], dpi=90)
    overview = folder / "steps.png"
    _overview(runs, text).savefig(overview, dpi=90)
    return [overview, _animate(frames, folder / "wave.gif"), *frames]


@torch.inference_mode()
def trace(lattice: Lattice3D, embedding_E: FloatArray) -> dict[str, FloatArray]:
    """How bright each cell is.

    Returns:
        (T + 1, X, Y, Z) float32, 0 to 1, of the lattice as it works, and of its rule alone if it has Mamba.
    """
    pair_BE = torch.from_numpy(np.stack([embedding_E, np.zeros_like(embedding_E)]))
    runs = {"rule and Mamba" if lattice.sweeps else "rule": record_states(lattice, pair_BE)}
    if lattice.sweeps and lattice.rule is not None:
        states = [lattice.start(pair_BE)]
        for _ in range(lattice.config.steps):
            states.append(lattice.step(states[-1]))
        runs["rule alone"] = torch.stack(states)
    return {name: _brightness(states) for name, states in runs.items()}


def _brightness(states_TBXYZC: Tensor) -> FloatArray:
    """The logarithm of the distance between the two lattices: 1 for the farthest, 0 for a RANGEth of it."""
    distance_TXYZ = (states_TBXYZC[:, 0] - states_TBXYZC[:, 1]).norm(dim=-1)
    share_TXYZ = distance_TXYZ / distance_TXYZ.max().clamp_min(1e-30)
    bright: FloatArray = (1 + share_TXYZ.log() / math.log(RANGE)).clamp_min(0).numpy()
    return bright


def _frame(runs: dict[str, FloatArray]) -> Figure:
    """One step: for each run its cells in space, and beside them its layers."""
    figure = Figure((12, 2.7 * len(runs) + 0.4))
    height = 0.93 / len(runs)
    for number, (name, bright_XYZ) in enumerate(runs.items()):
        bottom = (len(runs) - 1 - number) * height
        _draw_cells(figure.add_axes((0, bottom + 0.07, 0.3, height * 0.88), projection="3d"), bright_XYZ)
        layers = figure.add_axes((0.33, bottom + 0.25 * height, 0.65, height * 0.5))
        _draw_layers(layers, bright_XYZ[np.newaxis])
        layers.set(title=name, yticks=[])
    return figure


def _overview(runs: dict[str, FloatArray], text: str) -> Figure:
    """Steps downwards, layers to the right: a wave is a diagonal."""
    steps = len(next(iter(runs.values())))
    figure = Figure((7 * len(runs), 0.7 * steps + 1.5), layout="constrained")
    figure.suptitle(f"“{_short(text)}”: what it changed, step by step")
    panels = figure.subplots(1, len(runs), squeeze=False).ravel()
    for axes, (name, bright_TXYZ) in zip(panels, runs.items(), strict=True):
        _draw_layers(axes, bright_TXYZ)
        axes.set(title=name, ylabel="step")
    return figure


def _draw_cells(axes: Any, bright_XYZ: FloatArray) -> None:
    """The cells that something has reached, in space."""
    x, y, z = lit = np.nonzero(bright_XYZ)
    axes.scatter(x, y, z, c=bright_XYZ[lit], vmin=0, vmax=1, cmap=_COLOURS, s=22, alpha=0.7)
    for name, length in zip("xyz", bright_XYZ.shape, strict=True):
        axes.set(**{f"{name}lim": (0, max(1, length - 1)), f"{name}label": name})


def _draw_layers(axes: Axes, bright_TXYZ: FloatArray) -> None:
    """A row of layers a step, from the input face to the output face, with white between them."""
    steps, layers, height, width = bright_TXYZ.shape
    framed = np.pad(bright_TXYZ, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    axes.imshow(np.block([list(row) for row in framed]), vmin=0, vmax=1, cmap=_COLOURS)
    names = ["input", *map(str, range(1, layers - 1)), "output"][:layers]
    axes.set_xticks(np.arange(layers) * (width + 1) + (width - 1) / 2, names)
    axes.set_yticks(np.arange(steps) * (height + 1) + (height - 1) / 2, map(str, range(steps)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _animate(frames: Sequence[Path], path: Path) -> Path:
    images = [Image.open(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0)
    return path


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"
