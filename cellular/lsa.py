"""A teacher without a neural network: latent semantic analysis, TF-IDF of terms reduced by an SVD.

Deerwester et al. 1990, Indexing by latent semantic analysis. It can be fitted on any texts in a few minutes,
and knows which words go together, but not their order. Parts of words stand for the words that it never saw.

FOLDER/
  model.safetensors   components_VD int8, scales_V and idf_V float32; scaled components are the SVD's rows
  vocabulary.json     the V terms in the order of the rows: words, then parts of words
  config.json         how a text is cut into terms; written last
  README.md           the model card, if there is one

Shapes: N texts, V terms, D dimensions.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt

from cellular.checkpoint_files import (
    WEIGHTS,
    CheckpointConfig,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
)
from cellular.config import Settings
from cellular.errors import CellularError
from cellular.teachers import check_texts
from cellular.types import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

DEFAULT_LSA = "lsa-768"
VOCABULARY = "vocabulary.json"
_TOKEN = r"(?u)\b\w+\b|[^\w\s]"  # a word, or a mark: one tells a question
_STEPS = 4  # power iterations of the randomised SVD (Halko et al. 2011)


class LSAConfig(Settings):
    """What a text is counted by: the most frequent words, and the most frequent parts of words."""

    dimension: PositiveInt = 768
    words: PositiveInt = Field(6_700, description="words that are kept")
    parts: NonNegativeInt = Field(3_300, description="parts of words that are kept")
    part_characters: tuple[PositiveInt, PositiveInt] = Field((2, 4), description="shortest and longest")


class _Config(CheckpointConfig):
    kind = "an LSA's"

    lsa: LSAConfig
    words: NonNegativeInt = Field(description="how many of the vocabulary are words")


class _Terms(NamedTuple):
    words: list[str]
    parts: list[str]


class _Weights(NamedTuple):
    components_VD: NDArray[np.int8]
    scales_V: FloatArray
    idf_V: FloatArray


class LSATeacher:
    """Embeds texts by the terms in them: `load` reads a folder, `fit` makes a teacher of one's own.

    A text of which no term is known gets the direction that all texts share. Components are rounded to 8 bits
    when a teacher is fitted, so that a loaded one gives the vectors of the one that was saved.
    """

    def __init__(self, config: LSAConfig, terms: _Terms, weights: _Weights, name: str = "lsa") -> None:
        self.name, self.config, self.dimension = name, config, config.dimension
        self.terms, self._weights = terms, weights
        self.fingerprint = f"lsa:{self._digest()[:16]}"
        self._vectorizers = _vectorizers(config, terms)
        ends = np.split(weights.idf_V, [len(terms.words)])
        for vectorizer, idf in zip(self._vectorizers, ends, strict=False):
            vectorizer.idf_ = idf
        self._components_VD = weights.components_VD * weights.scales_V[:, None]

    @classmethod
    def fit(cls, texts: Sequence[str], config: LSAConfig = LSAConfig(), seed: int = 0) -> "LSATeacher":
        """A teacher of these texts.

        Args:
            texts: in memory; a hundred thousand random ones of a corpus do about as well as all of it.
            config: there must be more terms than dimensions.
            seed: of the randomised SVD.

        Raises:
            CellularError: the texts hold too few terms, or are too few.
        """
        from sklearn.decomposition import TruncatedSVD

        vectorizers = _vectorizers(config)
        try:
            counts_NV = _stack([vectorizer.fit_transform(texts) for vectorizer in vectorizers])
        except ValueError as error:  # scikit-learn's word for texts without a term
            raise CellularError(f"cannot fit on these texts: {error}") from error
        if min(counts_NV.shape) <= config.dimension:
            raise CellularError(
                f"{counts_NV.shape[0]:,} texts with {counts_NV.shape[1]:,} terms are too few for "
                f"{config.dimension} dimensions: give more texts, or fewer dimensions"
            )
        svd = TruncatedSVD(config.dimension, n_iter=_STEPS, random_state=seed).fit(counts_NV)
        idf_V = np.concatenate([vectorizer.idf_ for vectorizer in vectorizers]).astype(np.float32)
        terms = [vectorizer.get_feature_names_out().tolist() for vectorizer in vectorizers]
        return cls(config, _Terms(*terms, *([[]] * (2 - len(terms)))), _rounded(svd.components_.T, idf_V))

    @classmethod
    def load(cls, folder_or_name: Path | str = DEFAULT_LSA) -> "LSATeacher":
        """A teacher that comes with the package, by name, or one in a folder.

        Raises:
            CellularError: there is none, it is damaged, or another release's.
        """
        folder, config = read_checkpoint(folder_or_name, _Config)
        terms = _read_terms(folder / VOCABULARY)
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(folder / WEIGHTS).items()}
        size = len(terms)
        shapes = {"components_VD": (size, config.lsa.dimension), "scales_V": (size,), "idf_V": (size,)}
        if {name: array.shape for name, array in tensors.items()} != shapes or config.words > size:
            raise CellularError(f"the files in {folder} do not fit together: restore them all")
        name = "lsa" if str(folder_or_name) == DEFAULT_LSA else f"lsa:{folder_or_name}"
        parted = _Terms(terms[: config.words], terms[config.words :])
        return cls(config.lsa, parted, _Weights(**tensors), name)

    def save(
        self, folder: Path | str, card: str | None = None, training: dict[str, JsonValue] | None = None
    ) -> None:
        """Write a folder, made if need be; one that is there is replaced file by file.

        Args:
            folder: of the files above.
            card: text of the model card; None: none is written.
            training: facts for people.
        """
        config = _Config(lsa=self.config, words=len(self.terms.words), training=training or {})
        terms = json.dumps([*self.terms.words, *self.terms.parts], ensure_ascii=False)
        weights = {name: torch.from_numpy(array) for name, array in self._weights._asdict().items()}
        write_checkpoint(folder, config, weights, card, {VOCABULARY: terms.encode()})

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        if not check_texts(texts):
            return np.empty((0, self.dimension), np.float32)
        counts_NV = _stack([vectorizer.transform(texts) for vectorizer in self._vectorizers])
        vectors_ND: FloatArray = counts_NV @ self._components_VD
        vectors_ND[~vectors_ND.any(axis=1), 0] = 1.0
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND

    def _digest(self) -> str:
        digest = hashlib.sha256(json.dumps([self.config.model_dump(mode="json"), self.terms]).encode())
        for array in self._weights:
            digest.update(array.tobytes())
        return digest.hexdigest()


def lsa_card(teacher: LSATeacher, facts: dict[str, JsonValue]) -> str:
    """The model card: what it reads, and how it was made."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""# LSA, {teacher.dimension} dimensions

Latent semantic analysis (Deerwester et al. 1990): TF-IDF of {len(teacher.terms.words):,} words and \
{len(teacher.terms.parts):,} parts of words,
reduced by a truncated SVD, 8 bits a number. It knows which words go together, and nothing of their order.

| | |
|---|---|
| space | `{teacher.fingerprint}` |
{rows}
"""


def _vectorizers(config: LSAConfig, terms: _Terms | None = None) -> "list[TfidfVectorizer]":
    """Of words, and of parts of words where there are any; untrained, or with a vocabulary."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words, parts = terms or (None, None)
    vectorizers = [
        TfidfVectorizer(
            token_pattern=_TOKEN,
            max_features=config.words,
            vocabulary=words,
            sublinear_tf=True,
            dtype=np.float32,
        )
    ]
    if config.parts:
        vectorizers.append(
            TfidfVectorizer(
                analyzer="char_wb",
                ngram_range=config.part_characters,
                max_features=config.parts,
                vocabulary=parts,
                sublinear_tf=True,
                dtype=np.float32,
            )
        )
    return vectorizers


def _stack(counts: "Sequence[csr_matrix]") -> "csr_matrix":
    from scipy.sparse import hstack

    return hstack(counts, format="csr")


def _rounded(rows_VD: FloatArray, idf_V: FloatArray) -> _Weights:
    """Rows as 8 bits and a scale: an eighth of float64's bytes."""
    scales_V = np.maximum(np.abs(rows_VD).max(axis=1) / 127, 1e-30).astype(np.float32)
    components_VD = np.ascontiguousarray(np.rint(rows_VD / scales_V[:, None]).astype(np.int8))
    return _Weights(components_VD, scales_V, idf_V)


def _read_terms(path: Path) -> list[str]:
    try:
        terms: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CellularError(f"cannot read {path} ({error}): restore it") from error
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise CellularError(f"{path} is no list of terms: restore it")
    return terms
