"""Decoding with numba: loops that LLVM compiles on first use and numba keeps on disk. Needs wheels alone.

Weights are float32, or int8 with a scale a row. With int8, each row of inputs is rounded to 8 bits by its
peak too, and products are summed as integers.

Shapes: B texts, P prefix states, A applications, T positions, D hidden, K of a head, H = K / 2, R rows and
C columns of a matrix, F inner width, V vocabulary, L pieces.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

from cellular.decoders.ret.engines.compiled import (
    LOGIT_SCALE,
    CacheArray,
    CompiledEngine,
    PieceArray,
    rotary_arrays,
    to_array,
)
from cellular.decoders.ret.model import HEADS, HIDDEN, INNER, RET, VOCABULARY
from cellular.decoders.ret.quantization import quantise
from cellular.decoders.ret.weights import Precision
from cellular.types import FloatArray, IntArray

# Sums may be reordered, which vectors need; NaN and infinity keep their meaning.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
_EPSILON = np.float32(1e-6)
_WIDTH = HIDDEN // HEADS
_HALF = _WIDTH // 2

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`njit` with this file's options, for type checkers too."""
    return cast(Function, njit(**_OPTIONS)(function))


class Int8Matrix(NamedTuple):
    """Weights are codes times the scale of their row. Inputs are rounded to (code + zero) times a scale."""

    codes_RC: NDArray[np.int8]
    scales_R: FloatArray
    sums_R: NDArray[np.int32]
    """of each row's codes"""
    steps: np.float32
    """of rounding, between zero and the peak of the inputs"""
    zero: np.int32


Matrix = FloatArray | Int8Matrix


class Weights(NamedTuple):
    """The decoder's arrays, as the compiled loops take them."""

    query_key_value: Matrix
    attention_out: Matrix
    mlp_in: Matrix
    mlp_out: Matrix
    head: Matrix
    input_norm_D: FloatArray
    attention_norm_D: FloatArray
    mlp_norm_D: FloatArray
    output_norm_D: FloatArray
    steps_AD: FloatArray
    bias_V: FloatArray
    pieces_VD: FloatArray


class NumbaEngine(CompiledEngine):
    """Greedy decoding and single steps in loops compiled by numba."""

    name = "numba"
    precisions = ("fp32", "int8")

    def __init__(self, model: RET, precision: Precision = "fp32") -> None:
        super().__init__(model, precision)
        pack = to_array if precision == "fp32" else _int8_matrix
        self._weights = Weights(
            query_key_value=pack(model.query_key_value),
            attention_out=pack(model.attention_out),
            mlp_in=pack(model.mlp_in),
            mlp_out=to_array(model.mlp_out)
            if precision == "fp32"
            else _int8_matrix(model.mlp_out, positive=True),
            head=pack(model.pieces),
            input_norm_D=to_array(model.input_norm),
            attention_norm_D=to_array(model.attention_norm),
            mlp_norm_D=to_array(model.mlp_norm),
            output_norm_D=to_array(model.output_norm * LOGIT_SCALE),
            steps_AD=to_array(model.steps()),
            bias_V=to_array(model.output_bias),
            pieces_VD=self._pieces_VD,
        )

    def _forward(self, cache_BA2TD: CacheArray, position: int, inputs_BD: FloatArray) -> FloatArray:
        logits_BV = np.empty((len(inputs_BD), VOCABULARY), np.float32)
        rotary = rotary_arrays(cache_BA2TD.shape[3])
        _step(self._weights, rotary, cache_BA2TD, position, inputs_BD, logits_BV)
        return logits_BV

    def _write(
        self, prefix_BPD: FloatArray, offsets_BD: FloatArray, ids_BL: PieceArray, lengths_B: IntArray
    ) -> None:
        rotary = rotary_arrays(prefix_BPD.shape[1] + ids_BL.shape[1])
        _greedy(self._weights, rotary, prefix_BPD, offsets_BD, ids_BL, lengths_B)


def _int8_matrix(weight_RC: Tensor, positive: bool = False) -> Int8Matrix:
    """`positive`: its inputs are never negative, and can take all 256 steps."""
    matrix = quantise(weight_RC.detach(), 8)
    codes, scales = matrix.codes.numpy(), to_array(matrix.scales[:, 0])
    steps, zero = (255, 128) if positive else (127, 0)
    return Int8Matrix(codes, scales, codes.sum(1, dtype=np.int32), np.float32(steps), np.int32(zero))


@compiled
def _normalise(x_D: Any, gain_D: Any, y_D: Any) -> None:
    total = np.float32(0)
    for i in range(x_D.size):
        total += x_D[i] * x_D[i]
    scale = np.float32(1) / np.sqrt(total / np.float32(x_D.size) + _EPSILON)
    for i in range(x_D.size):
        y_D[i] = x_D[i] * scale * gain_D[i]


def _multiply(matrix: Any, x_C: Any, y_R: Any) -> None:
    """y = matrix x; compiled for either kind of matrix below."""
    raise NotImplementedError("this name stands for the compiled functions only")


@overload(_multiply, jit_options=cast(Any, _OPTIONS))
def _(matrix: Any, x_C: Any, y_R: Any) -> Any:
    return _multiply_fp32 if isinstance(matrix, types.Array) else _multiply_int8


def _multiply_fp32(matrix: Any, x_C: Any, y_R: Any) -> None:
    for row in range(matrix.shape[0]):
        total = np.float32(0)
        for i in range(matrix.shape[1]):
            total += matrix[row, i] * x_C[i]
        y_R[row] = total


def _multiply_int8(matrix: Any, x_C: Any, y_R: Any) -> None:
    codes_C = np.empty(x_C.size, np.int8)
    peak = np.float32(1e-30)
    for i in range(x_C.size):
        peak = max(peak, abs(x_C[i]))
    inverse = matrix.steps / peak
    for i in range(x_C.size):
        codes_C[i] = np.int8(np.int32(np.rint(x_C[i] * inverse)) - matrix.zero)
    for row in range(matrix.codes_RC.shape[0]):
        total = np.int32(matrix.zero * matrix.sums_R[row])
        for i in range(matrix.codes_RC.shape[1]):  # narrow at every step, or LLVM takes 64-bit sums
            total = np.int32(total + np.int32(matrix.codes_RC[row, i]) * np.int32(codes_C[i]))
        y_R[row] = np.float32(total) * (matrix.scales_R[row] / inverse)


@compiled
def _turn(x_K: Any, cosine_H: Any, sine_H: Any, y_K: Any) -> None:
    """Normalise one head of a query or key and rotate it by its position."""
    total = np.float32(0)
    for i in range(_WIDTH):
        total += x_K[i] * x_K[i]
    scale = np.float32(1) / np.sqrt(total / np.float32(_WIDTH) + _EPSILON)
    for i in range(_HALF):
        low, high = x_K[i] * scale, x_K[i + _HALF] * scale
        y_K[i] = low * cosine_H[i] - high * sine_H[i]
        y_K[i + _HALF] = high * cosine_H[i] + low * sine_H[i]


@compiled
def _attend(query_K: Any, keys_TK: Any, values_TK: Any, positions: int, y_K: Any) -> None:
    """What one head reads at the last of some positions."""
    weights_T = np.empty(positions, np.float32)
    peak = np.float32(-np.inf)
    for t in range(positions):
        score = np.float32(0)
        for i in range(_WIDTH):
            score += query_K[i] * keys_TK[t, i]
        weights_T[t] = score * np.float32(_WIDTH**-0.5)
        peak = max(peak, weights_T[t])
    total = np.float32(0)
    for t in range(positions):
        weights_T[t] = math.exp(weights_T[t] - peak)
        total += weights_T[t]
    y_K[:] = 0
    for t in range(positions):
        share = weights_T[t] / total
        for i in range(_WIDTH):
            y_K[i] += share * values_TK[t, i]


@compiled
def _attention(weights: Any, rotary: Any, cache_2TD: Any, position: int, x_D: Any, projected: Any) -> None:
    """Write this position's key and value; leave what its heads read in the first D of `projected`."""
    _multiply(weights.query_key_value, x_D, projected)
    keys_TD, values_TD = cache_2TD[0], cache_2TD[1]
    values_TD[position] = projected[2 * HIDDEN :]
    cosine_H, sine_H = rotary[0][position], rotary[1][position]
    query_K = np.empty(_WIDTH, np.float32)
    for head in range(HEADS):
        own = slice(head * _WIDTH, (head + 1) * _WIDTH)
        _turn(projected[HIDDEN:][own], cosine_H, sine_H, keys_TD[position, own])
        _turn(projected[own], cosine_H, sine_H, query_K)
        _attend(query_K, keys_TD[:, own], values_TD[:, own], position + 1, projected[own])


@compiled
def _advance(weights: Any, rotary: Any, cache_A2TD: Any, position: int, input_D: Any, logits_V: Any) -> None:
    """One position of one text through all applications."""
    x_D = np.empty(HIDDEN, np.float32)
    normed_D, projected = np.empty(HIDDEN, np.float32), np.empty(3 * HIDDEN, np.float32)
    inner_F = np.empty(INNER, np.float32)
    _normalise(input_D, weights.input_norm_D, x_D)
    for application in range(weights.steps_AD.shape[0]):
        x_D += weights.steps_AD[application]
        _normalise(x_D, weights.attention_norm_D, normed_D)
        _attention(weights, rotary, cache_A2TD[application], position, normed_D, projected)
        _multiply(weights.attention_out, projected[:HIDDEN], normed_D)
        x_D += normed_D
        _normalise(x_D, weights.mlp_norm_D, normed_D)
        _multiply(weights.mlp_in, normed_D, inner_F)
        for i in range(INNER):
            inner_F[i] = max(inner_F[i], np.float32(0)) ** 2
        _multiply(weights.mlp_out, inner_F, normed_D)
        x_D += normed_D
    _normalise(x_D, weights.output_norm_D, normed_D)
    _multiply(weights.head, normed_D, logits_V)
    logits_V += weights.bias_V


@compiled
def _step(weights: Any, rotary: Any, cache_BA2TD: Any, position: int, inputs_BD: Any, logits_BV: Any) -> None:
    for text in range(len(inputs_BD)):
        _advance(weights, rotary, cache_BA2TD[text], position, inputs_BD[text], logits_BV[text])


@compiled
def _greedy(weights: Any, rotary: Any, prefix_BPD: Any, offsets_BD: Any, ids_BL: Any, lengths_B: Any) -> None:
    positions, logits_V = prefix_BPD.shape[1] + ids_BL.shape[1], np.empty(VOCABULARY, np.float32)
    cache_A2TD = np.empty((len(weights.steps_AD), 2, positions, HIDDEN), np.float32)
    for text in range(len(prefix_BPD)):
        for position in range(prefix_BPD.shape[1]):
            _advance(weights, rotary, cache_A2TD, position, prefix_BPD[text, position], logits_V)
        for place in range(ids_BL.shape[1]):
            piece = np.argmax(logits_V)
            if piece == 0:  # the end
                break
            ids_BL[text, place] = piece
            lengths_B[text] = place + 1
            input_D = weights.pieces_VD[piece] + offsets_BD[text]
            _advance(weights, rotary, cache_A2TD, prefix_BPD.shape[1] + place, input_D, logits_V)
