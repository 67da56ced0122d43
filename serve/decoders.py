"""What the interface knows of each decoder; a line in DECODERS adds another."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.decoding import HybridOptions, HybridResult, RETOptions, RETResult
from cellular.client.results import DecoderName
from cellular.decoders.results import DecodeResult
from serve.schemas import DecodeRequest


class Decoder(NamedTuple):
    """How requests for one decoder are passed on, and its results written.

    Attributes:
        deployment: name in config.yaml.
        options: what goes with the embeddings; hashable, since requests of equal options share calls.
        fields: one element of `results`.
    """

    deployment: str
    options: Callable[[DecodeRequest], Any]
    fields: Callable[[Any, DecodeRequest], dict[str, object]]


def phrase_bank_fields(result: DecodeResult, request: DecodeRequest) -> dict[str, object]:
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


def ret_options(request: DecodeRequest) -> RETOptions:
    """The request's options for RET."""
    return RETOptions(**asked(request, RETOptions._fields))


def hybrid_options(request: DecodeRequest) -> HybridOptions:
    """The request's options for the hybrid."""
    return HybridOptions(**asked(request, HybridOptions._fields))


def asked(request: DecodeRequest, names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that the request gives; the others stay the worker's defaults."""
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def ret_fields(result: RETResult, request: DecodeRequest) -> dict[str, object]:
    """One RETResult."""
    alternatives = [alternative._asdict() for alternative in result.alternatives]
    return {"text": result.text, "source": "ret", "alternatives": alternatives}


def hybrid_fields(result: HybridResult, request: DecodeRequest) -> dict[str, object]:
    """One HybridResult."""
    return result._asdict()


# In the order of preference where a request names none.
DECODERS: dict[DecoderName, Decoder] = {
    "phrase_bank": Decoder("PhraseBankDecoder", lambda request: request.method, phrase_bank_fields),
    "ret": Decoder("RETDecoder", ret_options, ret_fields),
    "hybrid": Decoder("HybridDecoder", hybrid_options, hybrid_fields),
}
