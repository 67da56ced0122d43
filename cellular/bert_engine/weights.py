"""A model's weights as the kernel reads them.

H: hidden size, I: inner size, V: vocabulary, P: positions, N outputs and K inputs of a product.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellular.graphs import UnsupportedModelError
from cellular.large_pages import LINE, LargePages
from cellular.types import FloatArray

# What the kernel computes; a setting that a file does not have is the default of transformers.
_SETTINGS = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
Precision = Literal["bf16", "bf16x2", "fp32"]
INPUT_PARTS: Final[dict[Precision, int]] = {"bf16": 1, "bf16x2": 1, "fp32": 2}
"""The bfloat16 numbers that make one input of a product."""

_BLOCK = 32
_MOST_INNER = 384  # so that a block's inputs and weights fit the nearest cache


class Linear(NamedTuple):
    """A product and what is added to it."""

    parts: int  # the bfloat16 numbers that make one weight
    weights: NDArray[np.uint16]
    bias_N: FloatArray


class Norm(NamedTuple):
    """What follows a normalisation."""

    scale_H: FloatArray
    shift_H: FloatArray


class Layer(NamedTuple):
    """In the kernel's order."""

    query_key_value: Linear
    attention_out: Linear
    up: Linear
    down: Linear
    attention_norm: Norm
    norm: Norm


class Weights(NamedTuple):
    """A whole model, and its sizes."""

    inner: int
    share: int  # of the inner size, that is computed at a time
    head: int
    epsilon: float
    words_VH: FloatArray
    places_PH: FloatArray
    norm: Norm
    layers: list[Layer]


def read_weights(folder: Path, precision: Precision) -> Weights:
    """The weights of a sentence-transformers folder that holds a BERT with mean pooling.

    Args:
        folder: with modules.json; the weights are read from model.safetensors.
        precision: of the products.

    Raises:
        UnsupportedModelError: it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    config = _checked_config(folder)
    hidden, heads, inner = (
        int(config[name]) for name in ("hidden_size", "num_attention_heads", "intermediate_size")
    )
    if hidden % heads or any(size % _BLOCK for size in (hidden, inner, hidden // heads)):
        raise UnsupportedModelError(
            f"its sizes {hidden}, {inner} or {hidden}/{heads} are no multiples of {_BLOCK}"
        )
    share = max(size for size in range(_BLOCK, _MOST_INNER + 1, _BLOCK) if inner % size == 0)
    try:
        with safe_open(folder / "model.safetensors", "numpy") as file:

            def read(name: str) -> FloatArray:
                tensor: FloatArray = file.get_tensor(name)
                if tensor.dtype != np.float32:
                    raise UnsupportedModelError(f"its {name} is {tensor.dtype}")
                return np.ascontiguousarray(tensor)

            types = read("embeddings.token_type_embeddings.weight")
            layers = [
                _layer(
                    read,
                    f"encoder.layer.{number}",
                    hidden // heads,
                    share,
                    2 if precision != "bf16" or number == config["num_hidden_layers"] - 1 else 1,
                    1 if precision == "bf16" else 2,
                )
                for number in range(config["num_hidden_layers"])
            ]
            return Weights(
                inner,
                share,
                hidden // heads,
                float(config["layer_norm_eps"]),
                read("embeddings.word_embeddings.weight").copy(),
                read("embeddings.position_embeddings.weight") + types[0],
                _norm(read, "embeddings"),
                _together(layers),
            )
    except (OSError, SafetensorError, TypeError) as error:
        raise UnsupportedModelError(f"its model.safetensors is not as expected: {error}") from error


def _checked_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnsupportedModelError("its settings are not as expected") from error
    kinds = [module["type"].rsplit(".")[-1] for module in modules]
    if (
        kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
        or modules[0]["path"]
    ):
        raise UnsupportedModelError(f"its modules are {', '.join(kinds)}")
    for name, expected in _SETTINGS.items():
        if config.get(name, expected) != expected:
            raise UnsupportedModelError(f"its {name} is {config[name]}")
    modes = {name for name in pooling if name.startswith("pooling_mode_") and pooling[name] is True}
    if pooling.get("pooling_mode", "mean") != "mean" or (
        "pooling_mode" not in pooling and modes != {"pooling_mode_mean_tokens"}
    ):
        raise UnsupportedModelError("its pooling is not the mean")
    return config


def _layer(
    read: Callable[[str], FloatArray], name: str, head: int, share: int, attention: int, rest: int
) -> Layer:

    def linear(parts: int, *names: str, first_factor: float = 1, columns: int | None = None) -> Linear:
        weights = [read(f"{name}.{part}.weight") for part in names]
        biases = [read(f"{name}.{part}.bias") for part in names]
        weights[0], biases[0] = (np.float32(first_factor) * array for array in (weights[0], biases[0]))
        return Linear(parts, pack(np.concatenate(weights), parts, columns), np.concatenate(biases))

    projections = (f"attention.self.{part}" for part in ("query", "key", "value"))
    return Layer(
        linear(attention, *projections, first_factor=head**-0.5),  # so that scores need no factor
        linear(attention, "attention.output.dense"),
        linear(rest, "intermediate.dense"),
        linear(rest, "output.dense", columns=share),
        _norm(read, f"{name}.attention.output"),
        _norm(read, f"{name}.output"),
    )


def _together(layers: list[Layer]) -> list[Layer]:
    """The same, their products' weights in one memory."""
    parts = [part for layer in layers for part in layer[:4]]
    memory = LargePages(sum(part.weights.nbytes + LINE for part in parts))

    def moved(part: Linear) -> Linear:
        return part._replace(weights=memory.keep(part.weights))

    return [
        layer._replace(
            query_key_value=moved(layer.query_key_value),
            attention_out=moved(layer.attention_out),
            up=moved(layer.up),
            down=moved(layer.down),
        )
        for layer in layers
    ]


def _norm(read: Callable[[str], FloatArray], name: str) -> Norm:
    return Norm(read(f"{name}.LayerNorm.weight"), read(f"{name}.LayerNorm.bias"))


def pack(weights_NK: FloatArray, parts: int, columns: int | None = None) -> NDArray[np.uint16]:
    """Weights as bfloat16 in the order of `tiles.h`: (K/k, N/32, k/32, parts, 2, 16, 16, 2).

    Args:
        weights_NK: sizes are multiples of 32.
        parts: the numbers that make one weight.
        columns: k, the inputs that are multiplied at a time; all by default.
    """
    outputs, inputs = weights_NK.shape
    columns = columns or inputs
    rounded = to_bfloat16(weights_NK)
    halves = [rounded]
    if parts == 2:
        halves.append(to_bfloat16(weights_NK - from_bfloat16(rounded)))
    tiles = np.stack(halves).reshape(parts, outputs // 32, 2, 16, inputs // columns, columns // 32, 16, 2)
    return np.ascontiguousarray(tiles.transpose(4, 1, 5, 0, 2, 6, 3, 7))


def to_bfloat16(numbers: FloatArray) -> NDArray[np.uint16]:
    """Rounded to the nearest, to the even one of two; no infinities, no NaN."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(numbers: NDArray[np.uint16]) -> FloatArray:
    """Exactly."""
    return (numbers.astype(np.uint32) << 16).view(np.float32)
