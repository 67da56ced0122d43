"""What a body's schema cannot check: limits, dimensions, and which decoder takes which option."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from cellular.checks import check_embeddings
from cellular.client.results import DecoderName
from cellular.types import FloatArray
from serve.problems import ProblemError
from serve.schemas import OPTIONS, DecodeRequest
from serve.settings import Limits


def check_texts(texts: Sequence[str], field: str, limits: Limits) -> None:
    """Refuse too many texts, and texts that are too long."""
    check_count(texts, field, limits)
    for number, text in enumerate(texts):
        if len(text) > limits.max_text_characters:
            detail = f"{len(text)} characters; at most {limits.max_text_characters} are accepted"
            raise ProblemError(413, "text_too_long", detail, pointer=f"/{field}/{number}")


def check_count(rows: Sequence[object], field: str, limits: Limits) -> None:
    """Refuse too many rows."""
    if len(rows) > limits.max_batch:
        detail = f"{len(rows)} rows; at most {limits.max_batch} are accepted in one request"
        raise ProblemError(413, "batch_too_large", detail, pointer=f"/{field}")


def checked_embeddings(request: DecodeRequest, dimension: int, limits: Limits) -> FloatArray | None:
    """(N, D) float32 of unit length, or None for a request of texts, which are checked too."""
    if request.embeddings is None:
        check_texts(request.texts or (), "texts", limits)
        return None
    check_count(request.embeddings, "embeddings", limits)
    for row, numbers in enumerate(request.embeddings):
        if len(numbers) != dimension:
            detail = f"row {row} has {len(numbers)} numbers; the teacher's embeddings have {dimension}"
            raise ProblemError(422, "wrong_dimension", detail, pointer=f"/embeddings/{row}")
    try:
        with np.errstate(over="ignore"):  # a number such as 1e200 is refused, not warned of
            return check_embeddings(np.asarray(request.embeddings, np.float64), dimension)
    except ValueError as error:
        raise ProblemError(422, "invalid_embedding", str(error), pointer="/embeddings") from None


def check_options(
    request: DecodeRequest, decoder: DecoderName, served: Mapping[str, Any], limits: Limits
) -> None:
    """Refuse options of another decoder, beyond the limits, or that exclude each other.

    Args:
        request: a decode request.
        decoder: the one that answers it.
        served: what the decoder says of itself.
        limits: of the application.
    """
    own = OPTIONS[decoder]
    for name in chain.from_iterable(OPTIONS.values()):
        if name not in own and getattr(request, name) not in (None, False):
            _refuse(name, f"{decoder} answers this request, and takes {', '.join(own)}, but no {name}")
    largest = {
        "top_k": served.get("listed_candidates", 0),
        "n": limits.max_sequences,
        "beam": limits.max_sequences,
        "max_length": limits.max_length,
        "max_teacher_calls": limits.max_teacher_calls,
    }
    for name, most in largest.items():
        if (getattr(request, name) or 0) > most:
            _refuse(name, f"{name} is at most {most}")
    if decoder == "ret":
        _check_exclusions(request)
    default = served.get("max_teacher_calls", 1)
    calls = default if request.max_teacher_calls is None else request.max_teacher_calls
    for name, times in (("n", request.n), ("beam", request.beam), ("max_teacher_calls", calls)):
        _check_work(name, len(request.texts or request.embeddings or ()), times or 1, limits)


def _check_exclusions(request: DecodeRequest) -> None:
    if request.beam is not None and request.temperature:
        _refuse("beam", "beam search takes the likeliest texts, temperature draws them: send one of the two")
    if request.beam is not None and (request.n or 1) > request.beam:
        _refuse("n", f"n is at most beam, which is {request.beam}")
    for name in ("top_p", "seed"):
        if getattr(request, name) is not None and not request.temperature:
            _refuse(name, f"{name} needs a temperature above 0")
    for name in ("beam", "n"):
        if request.stream and (getattr(request, name) or 1) > 1:
            _refuse(name, "a stream writes one text for each embedding, and never takes a piece back")


def _check_work(name: str, rows: int, times: int, limits: Limits) -> None:
    """Each row counts as often as it is decoded or judged."""
    if times > 1 and rows * times > limits.max_batch:
        detail = f"{rows} rows times {name}, which is {times}, exceed {limits.max_batch}"
        raise ProblemError(413, "batch_too_large", detail, pointer=f"/{name}")


def _refuse(name: str, detail: str) -> None:
    raise ProblemError(422, "invalid_request", detail, pointer=f"/{name}")
