"""The forward pass of a sentence-transformers model: OpenVINO on CPUs, torch on GPUs."""

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.graphs import UnsupportedModelError, exported, load_sentence_transformer
from cellular.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from torch import Tensor

logger = logging.getLogger(__name__)

_FLOATS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # of what is not quantised
_GPU_TOKENS = 65_536  # of one pass on a GPU, which fewer would leave idle
_WINDOW = 16_384  # texts tokenised and sorted at a time, so that memory does not follow the number of texts


class Encoder(Protocol):
    """Texts in, unit vectors out."""

    @property
    def dimension(self) -> int:
        """D of the vectors."""

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
        return OpenVINOEncoder(exported(folder, fingerprint), config)
    except UnsupportedModelError as error:
        logger.warning("teacher %s runs on torch, several times slower: %s", config.name, error)
        return TorchEncoder(load_sentence_transformer(folder, "cpu"), config)


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
        self.precision = ("bf16" if native else "fp32") if config.precision == "auto" else config.precision
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
            for start in range(0, len(texts), _WINDOW):
                self._encode_window(texts[start : start + _WINDOW], vectors[start : start + _WINDOW])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # exact, where the graph's own was bf16
        return vectors

    def _encode_window(self, texts: Sequence[str], vectors: FloatArray) -> None:
        def store(request: Any, rows: np.ndarray) -> None:
            vectors[rows] = request.get_output_tensor().data

        encodings = self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])
        tokens = [encoding.ids for encoding in encodings]
        self._queue.set_callback(store)
        for rows in token_batches([len(ids) for ids in tokens], self._batch_tokens):
            self._queue.start_async(padded([tokens[row] for row in rows]), rows)
        self._queue.wait_all()


class TorchEncoder:
    """sentence-transformers' own modules: for GPUs, and for models that cannot be exported.

    Texts are tokenised all at once: `SentenceTransformer.encode` does it batch by batch while the GPU waits.
    """

    neighbour_agreement: float | None = None

    def __init__(self, model: "SentenceTransformer", config: TeacherConfig) -> None:
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise CellularError(f"teacher {config.name} does not say the dimension of its vectors")
        self.dimension = dimension
        self._model = model
        self._device = model.device.type
        fp32 = config.precision == "fp32" or (config.precision == "auto" and self._device == "cpu")
        self.precision = "fp32" if fp32 else "bf16"
        self._batch_size = 32 if self._device == "cpu" else 512
        self._tokenizer = _plain_tokenizer(model)
        self._batch_tokens = max(config.batch_tokens, 1 if self._device == "cpu" else _GPU_TOKENS)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length."""
        unit: FloatArray = self.encode_tensor(texts).cpu().numpy()
        return unit

    def encode_tensor(self, texts: Sequence[str]) -> "Tensor":
        """(N, D) float32 of unit length, on the model's device."""
        import torch

        if not texts:
            return torch.empty(0, self.dimension)
        with torch.autocast(self._device, torch.bfloat16, enabled=self.precision == "bf16"):
            vectors = self._batches(texts) if self._tokenizer else self._whole(texts)
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def _whole(self, texts: Sequence[str]) -> "Tensor":
        return self._model.encode(
            list(texts), batch_size=self._batch_size, show_progress_bar=False, convert_to_tensor=True
        )

    def _batches(self, texts: Sequence[str]) -> "Tensor":
        import torch

        assert self._tokenizer
        vectors = torch.empty(len(texts), self.dimension, device=self._model.device)
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        with torch.inference_mode():
            for rows in token_batches([len(ids) for ids in tokens], self._batch_tokens):
                arrays = padded([tokens[row] for row in rows])
                features = {name: torch.from_numpy(array) for name, array in arrays.items()}
                features = {name: tensor.to(self._model.device) for name, tensor in features.items()}
                vectors[torch.from_numpy(rows)] = self._model(features)["sentence_embedding"].float()
        return vectors


def _plain_tokenizer(model: "SentenceTransformer") -> "Tokenizer | None":
    """The model's tokenizer where nothing else is done to texts: no prompt, and a `tokenizers` one."""
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer) or model.default_prompt_name or not model.max_seq_length:
        return None
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_seq_length)
    return tokenizer


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Rows of each batch, longest first: rows times longest stays within the budget, or it is one row."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start]])
        yield order[start : start + size]
        start += size


def available_threads() -> int:
    """The cores this process may use: what Ray granted it (OMP_NUM_THREADS), else its affinity."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(granted), cores) if granted.isdigit() and int(granted) > 0 else cores


def padded(tokens: list[list[int]]) -> dict[str, np.ndarray]:
    """A graph's input: token numbers and attention mask, each (rows, longest) int64."""
    longest = max(map(len, tokens))
    ids = np.zeros((len(tokens), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _uses_cuda(config: TeacherConfig) -> bool:
    # Importing torch takes seconds: ask it only where there may be a GPU.
    if config.device == "cpu" or (config.device == "auto" and not any(Path("/dev").glob("nvidia[0-9]*"))):
        return False
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise CellularError("teacher: device is cuda, but torch finds no GPU; set device to auto or cpu")
    return torch.cuda.is_available()
