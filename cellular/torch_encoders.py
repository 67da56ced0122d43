"""sentence-transformers' own modules on torch: for GPUs, and for models that cannot be exported.

`SentenceTransformer.encode` tokenises a batch while the GPU waits, and waits for the GPU before the next.
Here a thread tokenises the next window of texts while the device is at this one; a window's token numbers go
there in one copy and are cut into batches on the device; nothing waits for a result before the caller does.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from cellular.batches import Tokens, token_batches, tokenised
from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.types import FloatArray

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from torch import Tensor

_GPU_TOKENS = 32_768  # of one pass on a GPU, which fewer would leave idle
_CPU_MULTIPLE, _GPU_MULTIPLE = 1, 8  # of a batch's width: tensor cores read eight numbers at a time
_WINDOW = 4_096  # texts tokenised and sorted at a time: the next ones while the device is at these
_PROBES = ("a", "  Two of a batch, PADDED.\n", "A text that is longer than the model reads. " * 100)
_LEAST_COSINE = 0.999  # of a probe in bf16 to sentence-transformers' own vector


class TorchEncoder:
    """Runs a sentence-transformers model in torch: the vectors of its `encode`, many texts at a time.

    In bf16 the weights of its linear layers are held in bf16; normalisations, sums, pooling and what follows
    are fp32. A model whose vectors would differ is run by its own `encode`, batch by batch.
    """

    engine = "torch"
    neighbour_agreement: float | None = None

    def __init__(self, model: "SentenceTransformer", config: TeacherConfig) -> None:
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise CellularError(f"teacher {config.name} does not say the dimension of its vectors")
        self.dimension = dimension
        self._model = model.eval()
        self._device = model.device.type
        cpu = self._device == "cpu"
        fp32 = config.precision in ("fp32", "bf16x2") or (config.precision == "auto" and cpu)
        self.precision = "fp32" if fp32 else "bf16"
        self._batch_size = 32 if cpu else 512  # of sentence-transformers' own encode
        self._batch_tokens = config.batch_tokens if cpu else max(config.batch_tokens, _GPU_TOKENS)
        self._multiple = _CPU_MULTIPLE if cpu else _GPU_MULTIPLE
        self._wide_mask = True
        self._tokenizer = _plain_tokenizer(model)
        self._choose_path()

    @property
    def path(self) -> str:
        """ "windows", or "encode": the model's own, where that alone gives its vectors."""
        return "windows" if self._tokenizer else "encode"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length."""
        unit: FloatArray = self.encode_tensor(texts).cpu().numpy()
        return unit

    def encode_tensor(self, texts: Sequence[str]) -> "Tensor":
        """(N, D) float32 of unit length, on the model's device, where it may still be being computed."""
        import torch

        if not texts:
            return torch.empty(0, self.dimension, device=self._model.device)
        vectors = self._fast(texts) if self._tokenizer else self._slow(texts)
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def _choose_path(self) -> None:
        """Settle on the fastest path that gives the model's own vectors of a few texts."""
        expected = self._slow(_PROBES, bf16=False)
        if self._tokenizer and self.precision == "bf16":
            _hold_in_bf16(self._model[0])
        for self._wide_mask in (True, False):
            if self._tokenizer and self._agrees(expected):
                return
        self._tokenizer = None

    def _agrees(self, expected: "Tensor") -> bool:
        import torch

        try:
            found = self._fast(_PROBES)
        except (RuntimeError, TypeError, ValueError, LookupError):  # a mask or features that it does not take
            return False
        return bool(torch.cosine_similarity(found, expected.float()).min() >= _LEAST_COSINE)

    def _slow(self, texts: Sequence[str], bf16: bool = True) -> "Tensor":
        import torch

        with torch.autocast(self._device, torch.bfloat16, enabled=bf16 and self.precision == "bf16"):
            return self._model.encode(
                list(texts), batch_size=self._batch_size, show_progress_bar=False, convert_to_tensor=True
            )

    def _fast(self, texts: Sequence[str]) -> "Tensor":
        import torch

        with torch.inference_mode():
            vectors = torch.empty(len(texts), self.dimension, device=self._model.device)
            start = 0
            for tokens in self._windows(texts):
                stop = start + len(tokens.lengths_N)
                self._encode_window(tokens, vectors[start:stop])
                start = stop
        return vectors

    def _windows(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """The texts' tokens, a window tokenised ahead of what the caller is at."""
        assert self._tokenizer
        parts = [texts[start : start + _WINDOW] for start in range(0, len(texts), _WINDOW)]
        if len(parts) == 1:
            yield tokenised(self._tokenizer, parts[0])
            return
        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(tokenised, self._tokenizer, parts[0])
            for part in parts[1:]:
                tokens = following.result()
                following = thread.submit(tokenised, self._tokenizer, part)
                yield tokens
            yield following.result()

    def _encode_window(self, tokens: Tokens, vectors: "Tensor") -> None:
        """Fill `vectors` (N, D) on the device; nothing here waits for it."""
        batches = list(token_batches(tokens.lengths_N, self._batch_tokens))
        order = np.concatenate(batches)
        ids_T = self._on_device(tokens.ids_T).long()
        order_N, starts_N, lengths_N = self._on_device(
            np.stack([order, tokens.starts_N[order], tokens.lengths_N[order]])
        )
        done = 0
        for rows in batches:
            some = slice(done, done + len(rows))
            width = self._width(int(tokens.lengths_N[rows[0]]))
            vectors[order_N[some]] = self._forward(
                *self._padded(ids_T, starts_N[some], lengths_N[some], width)
            )
            done += len(rows)

    def _width(self, longest: int) -> int:
        limit = max(longest, self._model.max_seq_length or 0)  # no position that the model does not have
        return min(-(-longest // self._multiple) * self._multiple, limit)

    def _on_device(self, array: np.ndarray) -> "Tensor":
        import torch

        tensor = torch.from_numpy(array)
        return (
            tensor if self._device == "cpu" else tensor.pin_memory().to(self._model.device, non_blocking=True)
        )

    def _padded(
        self, ids_T: "Tensor", starts_B: "Tensor", lengths_B: "Tensor", width: int
    ) -> tuple["Tensor", "Tensor"]:
        """Token numbers (B, width) int64 and which of them are there (B, width) bool."""
        import torch

        places = torch.arange(width, device=ids_T.device)
        mask_BL = places < lengths_B[:, None]
        ids_BL = ids_T[(starts_B[:, None] + places).clamp_(max=len(ids_T) - 1)]
        return ids_BL.masked_fill_(~mask_BL, self._model.tokenizer.pad_token_id or 0), mask_BL

    def _forward(self, ids_BL: "Tensor", mask_BL: "Tensor") -> "Tensor":
        """(B, D) float32, not normalised by more than the model does."""
        import torch

        flat_mask = mask_BL.long()
        # A flat mask makes transformers ask the device whether it is all ones, and wait; a wide one does not.
        mask = mask_BL[:, None, None, :] if self._wide_mask else flat_mask
        with torch.autocast(self._device, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self._model[0]({"input_ids": ids_BL, "attention_mask": mask})
        features["attention_mask"] = flat_mask
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in list(self._model)[1:]:
            features = module(features)
        sentence: Tensor = features["sentence_embedding"]
        return sentence.float()


def _hold_in_bf16(module: "torch.nn.Module") -> None:
    """Round the weights of linear layers once, not in every call."""
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.Linear):
            part.to(torch.bfloat16)


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
