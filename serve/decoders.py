"""What the interface knows of each decoder; a line in DECODERS adds another."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.decoding import HybridOptions, HybridResult, PhraseBankOptions, RETOptions, RETResult
from cellular.client.results import DecoderName
from cellular.decoders.context import Session
from cellular.decoders.results import DecodeResult
from serve.schemas import DecoderOptions


class Decoder(NamedTuple):
    """How requests for one decoder are passed on, and its results written.

    Attributes:
        deployment: name in config.yaml.
        options: what goes with the embeddings; hashable, since requests of equal options share calls.
        fields: one element of `results`.
        on_bank: whether it has banks, of which a call names one.
    """

    deployment: str
    options: Callable[[DecoderOptions, Session | None], Any]
    fields: Callable[[Any, DecoderOptions], dict[str, object]]
    on_bank: bool


def phrase_bank_fields(result: DecodeResult, request: DecoderOptions) -> dict[str, object]:
    """One PhraseBankResult."""
    return {
        "text": result.text,
        "score": result.score,
        "source": result.source,
        "reason": result.reason,
        "candidates": [
            {"phrase": candidate.phrase, "score": candidate.score}
            for candidate in result.candidates[: request.top_k]
        ],
    }


def phrase_bank_options(request: DecoderOptions, session: Session | None) -> PhraseBankOptions:
    """The request's options for the phrase bank, which is the one that reads sessions."""
    method = request.method or ("context_aware" if session else None)
    return PhraseBankOptions(method, session)


def ret_options(request: DecoderOptions, session: Session | None) -> RETOptions:
    """The request's options for RET."""
    return RETOptions(**asked(request, RETOptions._fields))


def hybrid_options(request: DecoderOptions, session: Session | None) -> HybridOptions:
    """The request's options for the hybrid."""
    return HybridOptions(**asked(request, HybridOptions._fields))


def asked(request: DecoderOptions, names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that the request gives; the others stay the worker's defaults."""
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def ret_fields(result: RETResult, request: DecoderOptions) -> dict[str, object]:
    """One RETResult."""
    alternatives = [alternative._asdict() for alternative in result.alternatives]
    return {"text": result.text, "source": "ret", "alternatives": alternatives}


def hybrid_fields(result: HybridResult, request: DecoderOptions) -> dict[str, object]:
    """One HybridResult."""
    candidates = [candidate._asdict() for candidate in result.candidates]
    return result._asdict() | {"candidates": candidates}


# In the order of preference where a request names none.
DECODERS: dict[DecoderName, Decoder] = {
    "phrase_bank": Decoder("PhraseBankDecoder", phrase_bank_options, phrase_bank_fields, on_bank=True),
    "ret": Decoder("RETDecoder", ret_options, ret_fields, on_bank=False),
    "hybrid": Decoder("HybridDecoder", hybrid_options, hybrid_fields, on_bank=True),
}
