"""What a body's schema cannot check: limits, dimensions, and which decoder takes which option."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from cellular.checks import check_embeddings
from cellular.types import FloatArray
from serve.problems import ProblemError
from serve.schemas import (
    DECODING,
    GENERATION,
    OPTIONS,
    DecodeRequest,
    DecoderOptions,
    GenerateRequest,
    ProcessRequest,
    RowsRequest,
    Writer,
)
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


def checked_embeddings(request: RowsRequest, dimension: int, limits: Limits) -> FloatArray | None:
    """(N, D) float32 of unit length, or None for a request of texts, which are checked too."""
    if request.embeddings is None:
        check_texts(request.texts or (), "texts", limits)
        return None
    check_count(request.embeddings, "embeddings", limits)
    return _unit_rows(request.embeddings, dimension, "embeddings")


def _unit_rows(rows: Sequence[Sequence[float]], dimension: int, field: str) -> FloatArray:
    for row, numbers in enumerate(rows):
        if len(numbers) != dimension:
            detail = f"row {row} has {len(numbers)} numbers; the teacher's embeddings have {dimension}"
            raise ProblemError(422, "wrong_dimension", detail, pointer=f"/{field}/{row}")
    try:
        with np.errstate(over="ignore"):  # a number such as 1e200 is refused, not warned of
            return check_embeddings(np.asarray(rows, np.float64), dimension)
    except ValueError as error:
        raise ProblemError(422, "invalid_embedding", str(error), pointer=f"/{field}") from None


def checked_turns(
    request: ProcessRequest, lattice: Mapping[str, Any], limits: Limits
) -> list[FloatArray] | None:
    """For each row the (T, D) float32 embeddings before it, of unit length; None: none were sent.

    Args:
        request: of which a lattice may be told earlier turns.
        lattice: what that says of itself.
        limits: of the application.
    """
    if request.earlier is None:
        return None
    if not lattice["history"]:
        _refuse("earlier", f"{lattice['name']} takes single embeddings: send no earlier turns")
    dimension = lattice["dimension"]
    rows = len(request.embeddings or request.texts or ())
    if len(request.earlier) != rows:
        detail = f"{len(request.earlier)} lists of earlier turns for {rows} rows"
        raise ProblemError(422, "invalid_request", detail, pointer="/earlier")
    check_count([turn for turns in request.earlier for turn in turns], "earlier", limits)
    return [
        _unit_rows(turns, dimension, f"earlier/{row}") if turns else np.empty((0, dimension), np.float32)
        for row, turns in enumerate(request.earlier)
    ]


def check_options(request: DecoderOptions, writer: Writer, served: Mapping[str, Any], limits: Limits) -> None:
    """Refuse options of another decoder, beyond the limits, or that exclude each other.

    Args:
        request: a decode or a generation.
        writer: what answers it.
        served: what that says of itself.
        limits: of the application.
    """
    own = OPTIONS[writer]
    if writer != "text_to_text":
        own += GENERATION if isinstance(request, GenerateRequest) else DECODING
    for name in dict.fromkeys((*chain.from_iterable(OPTIONS.values()), *GENERATION)):
        if name not in own and getattr(request, name, None) not in (None, False):
            _refuse(name, f"{writer} answers this request, and takes {', '.join(own)}, but no {name}")
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
    if writer == "ret":
        _check_exclusions(request)
    rows = request_rows(request)
    if request.session_id is not None and (rows > 1 or request.stream):
        _refuse("session_id", "a session is continued by one row at a time, and not by a stream")
    default = served.get("max_teacher_calls", 1)
    calls = default if request.max_teacher_calls is None else request.max_teacher_calls
    for name, times in (("n", request.n), ("beam", request.beam), ("max_teacher_calls", calls)):
        _check_work(name, rows, times or 1, limits)


def request_rows(request: DecoderOptions) -> int:
    """Texts or embeddings in a request."""
    embeddings = request.embeddings if isinstance(request, DecodeRequest) else None
    texts = request.texts if isinstance(request, DecodeRequest | GenerateRequest) else None
    return len(embeddings or texts or ())


def _check_exclusions(request: DecoderOptions) -> None:
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
