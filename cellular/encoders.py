"""The forward pass of a sentence-transformers model: C or OpenVINO on CPUs, torch on GPUs."""

import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellular.batches import WINDOW, padded, token_batches, tokenised
from cellular.bert_engine import BertEncoder, Precision
from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.graphs import UnsupportedModelError, exported, load_sentence_transformer
from cellular.torch_encoders import TorchEncoder
from cellular.types import FloatArray

logger = logging.getLogger(__name__)

_FLOATS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: of the rest; bf16 there gives wrong vectors


class Encoder(Protocol):
    """Texts in, unit vectors out."""

    @property
    def dimension(self) -> int:
        """D of the vectors."""

    @property
    def engine(self) -> str:
        """What computes: "C", "OpenVINO" or "torch"."""

    @property
    def precision(self) -> str:
        """The arithmetic it computes in."""

    @property
    def neighbour_agreement(self) -> float | None:
        """Share of held-out sentences with the same nearest one as in fp32; None: not quantised."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length; (0, D) for no texts."""


def load_encoder(folder: Path, fingerprint: str, config: TeacherConfig) -> Encoder:
    """The fastest encoder that this machine has for the model in a folder."""
    if config.precision == "int8":
        return _int8_encoder(folder, fingerprint, config)
    if _uses_cuda(config):
        return TorchEncoder(load_sentence_transformer(folder, "cuda"), config)
    try:
        graph = exported(folder, fingerprint)
    except UnsupportedModelError as error:
        logger.warning("teacher %s runs on torch, several times slower: %s", config.name, error)
        return TorchEncoder(load_sentence_transformer(folder, "cpu"), config)
    precision: Precision = "bf16" if config.precision == "auto" else config.precision
    try:
        return BertEncoder(folder, graph, precision, config.threads or available_threads())
    except (UnsupportedModelError, CellularError) as error:
        logger.info("teacher %s runs on OpenVINO, not in C: %s", config.name, error)
        return OpenVINOEncoder(graph, config)


def _int8_encoder(folder: Path, fingerprint: str, config: TeacherConfig) -> Encoder:
    from cellular.int8_graphs import quantised

    if config.device == "cuda":
        raise CellularError(f"teacher {config.name}: int8 is for processors; set device to cpu, or take bf16")
    try:
        return OpenVINOEncoder(quantised(exported(folder, fingerprint), fingerprint), config)
    except UnsupportedModelError as error:
        raise CellularError(f"teacher {config.name} cannot be quantised: {error}") from error


class OpenVINOEncoder:
    """Runs an exported graph: batches of a token budget, longest texts first, one stream a thread.

    A text's vector depends on the other texts of its batch by less than 1e-3 in bf16 and 1e-5 in fp32.
    """

    engine = "OpenVINO"

    def __init__(self, folder: Path, config: TeacherConfig) -> None:
        import openvino
        from tokenizers import Tokenizer

        settings = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        self.dimension: int = settings["dimension"]
        self.neighbour_agreement: float | None = settings.get("neighbour_agreement")
        self._prompt: str = settings["prompt"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._batch_tokens = config.batch_tokens
        core = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        chosen = {"auto": "bf16" if native else "fp32", "bf16x2": "fp32"}
        self.precision = chosen.get(config.precision, config.precision)
        threads = config.threads or available_threads()
        options = {
            "INFERENCE_PRECISION_HINT": _FLOATS[self.precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned, every process of a machine would share the same core
        }
        self._queue = openvino.AsyncInferQueue(core.compile_model(folder / "graph.xml", "CPU", options))
        self._lock = threading.Lock()  # the queue has one callback and one set of requests

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        with self._lock:
            for start in range(0, len(texts), WINDOW):
                self._encode_window(texts[start : start + WINDOW], vectors[start : start + WINDOW])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # exact, where the graph's own was bf16
        return vectors

    def _encode_window(self, texts: Sequence[str], vectors: FloatArray) -> None:
        def store(request: Any, rows: np.ndarray) -> None:
            vectors[rows] = request.get_output_tensor().data

        tokens = tokenised(self._tokenizer, [self._prompt + text for text in texts])
        self._queue.set_callback(store)
        for rows in token_batches(tokens.lengths_N, self._batch_tokens):
            self._queue.start_async(padded(tokens, rows), rows)
        self._queue.wait_all()


def available_threads() -> int:
    """The cores this process may use: what Ray granted it (OMP_NUM_THREADS), else its affinity."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(granted), cores) if granted.isdigit() and int(granted) > 0 else cores


def _uses_cuda(config: TeacherConfig) -> bool:
    # Importing torch takes seconds: ask it only where there may be a GPU.
    if config.device == "cpu" or (config.device == "auto" and not any(Path("/dev").glob("nvidia[0-9]*"))):
        return False
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise CellularError("teacher: device is cuda, but torch finds no GPU; set device to auto or cpu")
    return torch.cuda.is_available()
