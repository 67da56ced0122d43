"""Export of a sentence-transformers model to one OpenVINO graph, kept in the user's cache.

Pooling and normalisation are inside. A process that finds the graph needs neither torch nor transformers, and
starts in under a second instead of ten.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cellular.errors import CellularError
from cellular.types import FloatArray

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_FILES = ("graph.xml", "graph.bin", "tokenizer.json")
PROBES: Final = ("a", "Two of a batch, padded.", "A text that is longer than the model reads. " * 100)
"""graph.json has their vectors, so that whatever computes the model otherwise can be checked without it."""


class UnsupportedModelError(Exception):
    """The model does something that the exported graph would not do."""


def exported(folder: Path, fingerprint: str) -> Path:
    """The folder of a model's graph in the user's cache, exported first where it is missing or damaged.

    Raises:
        UnsupportedModelError: the model cannot be exported.
        CellularError: the cache cannot be written.
    """
    return kept(fingerprint, lambda target: _export(folder, target))


def cache_folder(fingerprint: str) -> Path:
    """Where the graph of an embedding space is kept, for this OpenVINO."""
    from platformdirs import user_cache_path

    name = f"{fingerprint.replace(':', '-')}-openvino-{version('openvino')}"
    return user_cache_path("cellular") / "graphs" / name


def kept(fingerprint: str, make: Callable[[Path], None]) -> Path:
    """The folder of a space's graph; `make` fills it first where it is missing or damaged.

    Raises:
        CellularError: the cache cannot be written.
    """
    from filelock import FileLock

    target = cache_folder(fingerprint)
    root = target.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # a machine's workers start together: one makes it
            if not _intact(target):
                shutil.rmtree(target, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=root) as scratch:
                    make(Path(scratch) / "graph")
                    (Path(scratch) / "graph").rename(target)
    except OSError as error:
        raise CellularError(
            f"cannot keep the teacher's graph in {root} ({error}); set XDG_CACHE_HOME"
        ) from error
    return target


def save_settings(target: Path, settings: dict[str, Any]) -> None:
    """Write graph.json: how to run the graph, and the checksums of its files."""
    settings = settings | {"sha256": {name: _sha256(target / name) for name in _FILES}}
    (target / "graph.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def load_sentence_transformer(folder: Path, device: str) -> "SentenceTransformer":
    """The model as sentence-transformers loads it: no network, no code of its own, no pickle, no noise.

    Raises:
        CellularError: the folder is damaged, or needs one of these.
    """
    from sentence_transformers import SentenceTransformer

    try:
        with _quiet():
            return SentenceTransformer(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CellularError(f"cannot load the model in {folder}: {reason}") from error


def _export(folder: Path, target: Path) -> None:
    model = load_sentence_transformer(folder, "cpu")
    names = [type(module).__name__ for module in model]
    if names[:2] != ["Transformer", "Pooling"] or not {*names[2:]} <= {"Dense", "Normalize"}:
        raise UnsupportedModelError(f"its modules are {', '.join(names)}")
    target.mkdir()
    _save_graph(model, target)
    _save_tokenizer(model, target)
    prompt = model.prompts.get(model.default_prompt_name or "") or ""
    probes = [[round(float(number), 6) for number in row] for row in _check_equal(model, target, prompt)]
    settings = {"dimension": model.get_embedding_dimension(), "prompt": prompt, "probes": probes}
    save_settings(target, settings)


def _save_tokenizer(model: "SentenceTransformer", target: Path) -> None:
    if not getattr(model.tokenizer, "is_fast", False):
        raise UnsupportedModelError("its tokenizer is not one of the tokenizers library")
    tokenizer = model.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    if model.max_seq_length:
        tokenizer.enable_truncation(model.max_seq_length)
    tokenizer.save(str(target / "tokenizer.json"))


def _save_graph(model: "SentenceTransformer", target: Path) -> None:
    import openvino
    import torch

    class Pipeline(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> "torch.Tensor":
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            sentence: torch.Tensor = self.model(features)["sentence_embedding"]
            return torch.nn.functional.normalize(sentence, dim=1)

    example = {name: torch.ones(2, 7, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    try:
        with _quiet(), torch.inference_mode():
            graph = openvino.convert_model(Pipeline().eval(), example_input=example)
    except Exception as error:  # the frontend raises whatever the traced model does
        raise UnsupportedModelError(f"OpenVINO cannot convert it ({type(error).__name__})") from error
    openvino.save_model(graph, target / "graph.xml", compress_to_fp16=False)


def _check_equal(model: "SentenceTransformer", target: Path, prompt: str) -> FloatArray:
    """sentence-transformers' vectors of PROBES, (N, D), which the graph has been found to give."""
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    tokenizer.enable_padding()
    batch = tokenizer.encode_batch([prompt + text for text in PROBES])
    graph = openvino.compile_model(target / "graph.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    vectors = graph(
        {"input_ids": [row.ids for row in batch], "attention_mask": [row.attention_mask for row in batch]}
    )[0]
    expected: FloatArray = model.encode(list(PROBES), normalize_embeddings=True, show_progress_bar=False)
    cosine = float((vectors * expected).sum(axis=1).min())
    if not cosine > 0.9999:
        raise UnsupportedModelError(f"its exported graph gives other vectors (cosine {cosine:.5f})")
    return expected


def _intact(target: Path) -> bool:
    try:
        settings = json.loads((target / "graph.json").read_text(encoding="utf-8"))
        return "probes" in settings and all(
            _sha256(target / name) == settings["sha256"][name] for name in _FILES
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and warnings."""
    from transformers.utils import logging as transformers_logging

    shown, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
