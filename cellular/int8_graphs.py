"""Teachers in int8: exported graphs whose matrix products are quantised after training, by option only.

Calibration and measurement use real English that every Python brings: its own documentation. The quantised
graph is kept beside the others, with how often it agrees with fp32 on the nearest of sentences that the
calibration has not seen. Its vectors differ from fp32 by far more than bf16's do, so that they are a space
of their own: the fingerprint says `-int8`.
"""

import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cellular.batches import padded, tokenised
from cellular.config import TeacherConfig
from cellular.encoders import OpenVINOEncoder
from cellular.errors import CellularError
from cellular.graphs import cache_folder, kept, save_settings
from cellular.types import FloatArray

CALIBRATION, HELD_OUT = 300, 500  # sentences


def int8_fingerprint(fingerprint: str) -> str:
    """The space of a model's int8 vectors: its weights, the sentences that set the scales, and who set them.

    Raises:
        CellularError: nncf is not installed.
    """
    name, _, digits = fingerprint.rpartition(":")
    basis = "\n".join([digits, _nncf_version(), *_sentences()[:CALIBRATION]])
    return f"{name}-int8:{hashlib.sha256(basis.encode()).hexdigest()[:16]}"


def quantised(graph: Path, fingerprint: str) -> Path:
    """The folder of a graph's int8 form in the user's cache, made first where it is missing or damaged.

    Args:
        graph: what `exported` gave.
        fingerprint: of the model in fp32.

    Raises:
        CellularError: nncf is not installed, or the cache cannot be written.
    """
    return kept(int8_fingerprint(fingerprint), lambda target: _quantise(graph, target))


def known_agreement(fingerprint: str) -> float | None:
    """Neighbour agreement of a model's int8 graph; None where none has been made here."""
    try:
        settings = cache_folder(int8_fingerprint(fingerprint)) / "graph.json"
        return float(json.loads(settings.read_text(encoding="utf-8"))["neighbour_agreement"])
    except (CellularError, OSError, ValueError, KeyError):
        return None


def neighbour_agreement(left_ND: FloatArray, right_ND: FloatArray) -> float:
    """Share of N >= 2 texts whose nearest other text is the same in two embeddings of them."""
    own = 2 * np.eye(len(left_ND), dtype=np.float32)
    left_N, right_N = (np.argmax(vectors @ vectors.T - own, axis=1) for vectors in (left_ND, right_ND))
    return float((left_N == right_N).mean())


def _quantise(graph: Path, target: Path) -> None:
    target.mkdir()
    settings = json.loads((graph / "graph.json").read_text(encoding="utf-8"))
    shutil.copy(graph / "tokenizer.json", target)
    sentences = _sentences()
    _save_quantised(graph, target, [settings["prompt"] + text for text in sentences[:CALIBRATION]])
    held_out = sentences[CALIBRATION : CALIBRATION + HELD_OUT]
    save_settings(target, settings)  # before it can be opened
    expected = OpenVINOEncoder(graph, TeacherConfig(precision="fp32")).encode(held_out)
    found = OpenVINOEncoder(target, TeacherConfig(precision="int8")).encode(held_out)
    measured = {
        "neighbour_agreement": round(neighbour_agreement(found, expected), 4),
        "mean_cosine": round(float((found * expected).sum(axis=1).mean()), 5),
    }
    save_settings(target, settings | measured)


def _save_quantised(graph: Path, target: Path, sentences: Sequence[str]) -> None:
    import openvino
    from tokenizers import Tokenizer

    nncf = _import_nncf()
    tokenizer = Tokenizer.from_file(str(graph / "tokenizer.json"))
    examples = nncf.Dataset(
        sentences, lambda text: padded(tokenised(tokenizer, [text]), np.zeros(1, np.int64))
    )
    with redirect_stdout(sys.stderr):  # its progress bars
        model = nncf.quantize(
            openvino.Core().read_model(graph / "graph.xml"),
            examples,
            model_type=nncf.ModelType.TRANSFORMER,  # SmoothQuant, Xiao et al. 2023
            subset_size=len(sentences),
        )
    openvino.save_model(model, target / "graph.xml", compress_to_fp16=False)


def _import_nncf() -> Any:
    os.environ.setdefault("NNCF_CI", "1")  # otherwise it reports its use to its makers
    import nncf

    nncf.set_log_level(30)
    return nncf


def _nncf_version() -> str:
    try:
        return version("nncf")
    except PackageNotFoundError as error:
        raise CellularError("int8 teachers need nncf; run: pip install 'cellular[int8]'") from error


def _sentences() -> list[str]:
    """Sentences of Python's documentation, in a random order that is always the same."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics.values()).split())
    found = {sentence for sentence in re.split(r"(?<=[.!?]) ", text) if 20 <= len(sentence) <= 200}
    ordered = sorted(found)
    random.Random(0).shuffle(ordered)
    return ordered
