"""What the interface knows of each decoder; a line in DECODERS adds another."""

from collections.abc import Callable
from typing import Any, NamedTuple

from actors.ret_decoder import RETOptions, RETResult
from cellular.decoders import DecodeResult
from serve.schemas import DecodeRequest
from serve.settings import DecoderName


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
    asked = {name: getattr(request, name) for name in RETOptions._fields}
    return RETOptions(**{name: value for name, value in asked.items() if value is not None})


def ret_fields(result: RETResult, request: DecodeRequest) -> dict[str, object]:
    """One RETResult."""
    alternatives = [{"text": one.text, "log_probability": one.log_probability} for one in result.alternatives]
    return {"text": result.text, "source": "ret", "alternatives": alternatives}


# In the order of preference where a request names none.
DECODERS: dict[DecoderName, Decoder] = {
    "phrase_bank": Decoder("PhraseBankDecoder", lambda request: request.method, phrase_bank_fields),
    "ret": Decoder("RETDecoder", ret_options, ret_fields),
}
