"""What an evaluation compares: decoders, baselines and pipelines, each as one function to texts.

A line in CONTENDERS and its function add another; nothing else knows how a decoder is made or called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellular.bank import PhraseBank
from cellular.config import DecodingConfig
from cellular.decoders import PhraseBankDecoder
from cellular.errors import CellularError
from cellular.pipeline import NAMED, FlexibleCellularPipeline
from cellular.teachers import Teacher
from cellular.types import FloatArray
from pipelines.mappers import checkpoint_mapper

if TYPE_CHECKING:
    from cellular.decoders.ret import RETDecoder

BASELINES = ("constant", "nearest")
CANDIDATES = 33


@dataclass(frozen=True)
class Contender:
    """Something that answers embeddings with texts.

    Attributes:
        name: as the table shows it.
        decode: from what it reads of n texts, and a seed, to n texts.
        reads: their embeddings, (n, D) float32 of unit length, or the texts themselves.
        samples: whether the seed matters.
        about: what it is made of, for the reader of a report.
    """

    name: str
    decode: Callable[[Any, int], list[str]]
    reads: Literal["embeddings", "texts"] = "embeddings"
    samples: bool = False
    about: dict[str, str] = field(default_factory=dict)


class CountingTeacher:
    """A teacher that counts the texts it embeds: the calls that a decoder pays for."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.name = teacher.name
        self.dimension = teacher.dimension
        self.fingerprint = teacher.fingerprint
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        self.calls += len(texts)
        return self._teacher.encode(texts)


@dataclass(frozen=True)
class Parts:
    """What contenders are made of."""

    teacher: CountingTeacher
    constant: str
    bank: PhraseBank | None = None
    checkpoint: Path | None = None  # None: the one that comes with the package
    engine: str = "auto"  # what runs RET

    def needed_bank(self, name: str) -> PhraseBank:
        """The bank of a contender that cannot do without.

        Raises:
            CellularError: there is none, or it is another teacher's.
        """
        if self.bank is None:
            raise CellularError(f"{name} decodes from a phrase bank: pass --bank FOLDER, or --training-bank")
        self.bank.check_teacher(self.teacher.fingerprint)
        return self.bank


def constant(parts: Parts) -> Contender:
    """The same sentence whatever is asked."""
    sentence = parts.constant
    return Contender("constant", lambda rows, seed: [sentence] * len(rows), about={"sentence": sentence})


def nearest(parts: Parts) -> Contender:
    """The nearest phrase of the bank."""
    bank = parts.needed_bank("nearest")
    return Contender(
        "nearest",
        lambda rows, seed: bank.phrases(bank.search(rows, 1).ids[:, 0].tolist()),
        about=_about_bank(bank),
    )


def phrase_bank(parts: Parts) -> Contender:
    """PhraseBankDecoder, without its cache of earlier answers."""
    bank = parts.needed_bank("phrase_bank")
    decoder = PhraseBankDecoder(DecodingConfig(enable_caching=False))
    decoder.load_phrase_bank(bank)
    return Contender(
        "phrase_bank",
        lambda rows, seed: [result.text for result in decoder.decode_batch(rows)],
        about=_about_bank(bank) | {"assembly": decoder.config.assembly_method},
    )


def ret(parts: Parts) -> Contender:
    """RETDecoder, the likeliest piece each time."""
    return _writer("ret", parts, lambda decoder, rows, seed: decoder.decode_batch(rows))


def ret_beam(parts: Parts) -> Contender:
    """RETDecoder, the likeliest text that a beam search finds."""
    return _writer("ret_beam", parts, lambda decoder, rows, seed: decoder.decode_batch(rows, method="beam"))


def ret_sample(parts: Parts) -> Contender:
    """RETDecoder, one draw."""
    return replace(
        _writer(
            "ret_sample",
            parts,
            lambda decoder, rows, seed: decoder.decode_batch(rows, method="sample", seed=seed),
        ),
        samples=True,
    )


def ret_best_of_33(parts: Parts) -> Contender:
    """RETDecoder, of one greedy text and 32 draws the nearest by the teacher.

    On 150 valid captions temperature .7 gave 30.8 BLEU and cosine .860, temperature 1 gave 27.1 and .843.
    """

    def decode(decoder: "RETDecoder", rows: FloatArray, seed: int) -> list[str]:
        drawn = decoder.samples(rows, CANDIDATES - 1, temperature=0.7, top_p=0.9, seed=seed)
        texts = [
            text
            for greedy, others in zip(decoder.decode_batch(rows), drawn, strict=True)
            for text in (greedy, *(other.text for other in others))
        ]
        vectors_BCE = parts.teacher.encode(texts).reshape(len(rows), CANDIDATES, -1)
        best = np.einsum("bce,be->bc", vectors_BCE, rows).argmax(axis=1)
        return [texts[row * CANDIDATES + choice] for row, choice in enumerate(best)]

    return replace(_writer("ret_best_of_33", parts, decode), samples=True)


def hybrid(parts: Parts, effort: str = "medium") -> Contender:
    """HybridDecoder at one of its efforts."""
    from cellular.decoders.hybrid import HybridDecoder

    bank, writer = parts.needed_bank("hybrid"), _load_ret(parts)
    decoder = HybridDecoder(bank, writer, parts.teacher, effort)
    return Contender(
        "hybrid" if effort == "medium" else f"hybrid_{effort}",
        lambda rows, seed: [result.text for result in decoder.decode_batch(rows, seed=seed)],
        samples=True,
        about=_about_bank(bank) | _about_ret(parts, writer) | {"effort": effort},
    )


def pipeline(parts: Parts, source: str) -> Contender:
    """A pipeline from text to text, its teacher's time counted; of `parts` it takes nothing."""
    opened = FlexibleCellularPipeline(source)
    name = f"{NAMED[source]} mode" if source in NAMED else Path(source).stem
    return Contender(
        name,
        lambda texts, seed: opened.generate(texts),
        reads="texts",
        about={"pipeline": source, "parameters": f"{opened.parameters()['all']:,}"},
    )


def behind(name: str, contender: Contender, parts: Parts) -> Contender:
    """What decodes embeddings, reading what a lattice makes of them.

    Raises:
        CellularError: no such lattice, or it is another teacher's.
    """
    mapper = checkpoint_mapper(name, parts.teacher.fingerprint)
    return replace(
        contender,
        name=f"{contender.name} behind {mapper.name}",
        decode=lambda rows, seed: contender.decode(mapper.map(rows, None), seed),
        about=contender.about | {"lattice": mapper.name},
    )


CONTENDERS: dict[str, Callable[[Parts], Contender]] = {
    "constant": constant,
    "nearest": nearest,
    "phrase_bank": phrase_bank,
    "ret": ret,
    "ret_beam": ret_beam,
    "ret_sample": ret_sample,
    "ret_best_of_33": ret_best_of_33,
    "hybrid_none": partial(hybrid, effort="none"),
    "hybrid_low": partial(hybrid, effort="low"),
    "hybrid": hybrid,
    "hybrid_high": partial(hybrid, effort="high"),
    **{name: partial(pipeline, source=name) for name in NAMED},
}


def check_name(name: str) -> None:
    """Refuse what `make_contender` would not know, before any work is done.

    Raises:
        CellularError: neither a name in CONTENDERS nor a checkpoint's folder, nor a pipeline's file.
    """
    if name not in CONTENDERS and not (Path(name) / "config.json").is_file() and not _is_yaml(name):
        raise CellularError(
            f"no decoder {name}: choose {', '.join(CONTENDERS)}, the folder of a checkpoint or a bank, "
            "or the YAML file of a pipeline"
        )


def make_contender(name: str, parts: Parts) -> Contender:
    """The contender of a name in CONTENDERS, RET with the weights in a folder, or the pipeline of a file.

    Raises:
        CellularError: it is neither, or cannot be loaded.
    """
    check_name(name)
    if name in CONTENDERS:
        return CONTENDERS[name](parts)
    if _is_yaml(name):
        return pipeline(parts, name)
    return replace(ret(replace(parts, checkpoint=Path(name))), name=Path(name).resolve().name)


def _is_yaml(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()


def _writer(
    name: str, parts: Parts, decode: Callable[["RETDecoder", FloatArray, int], list[str]]
) -> Contender:
    """A way to write texts with RET's weights."""
    decoder = _load_ret(parts)
    return Contender(name, partial(decode, decoder), about=_about_ret(parts, decoder))


def _load_ret(parts: Parts) -> "RETDecoder":
    from cellular.decoders.ret import DEFAULT_CHECKPOINT, RETDecoder

    decoder = RETDecoder.load(parts.checkpoint or DEFAULT_CHECKPOINT, engine=parts.engine)
    decoder.check_teacher(parts.teacher.fingerprint)
    return decoder


def _about_ret(parts: Parts, decoder: "RETDecoder") -> dict[str, str]:
    return {
        "checkpoint": parts.checkpoint.name if parts.checkpoint else "the package's",
        "parameters": f"{decoder._count_parameters():,}",
        "engine": decoder.engine.name,
    }


def _about_bank(bank: PhraseBank) -> dict[str, str]:
    return {"bank": f"{bank.path.name} {bank.version}, {len(bank):,} phrases"}
