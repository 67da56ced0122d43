"""Texts as token numbers, and batches of them that a forward pass takes at once."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WINDOW: Final = 16_384
"""Texts tokenised at a time, so that memory does not follow their number."""


class Tokens(NamedTuple):
    """The token numbers of N texts, one text after the other: T of them."""

    ids_T: npt.NDArray[np.int32]
    starts_N: npt.NDArray[np.int64]  # where each text begins in `ids_T`
    lengths_N: npt.NDArray[np.int64]


def tokenised(tokenizer: "Tokenizer", texts: Sequence[str]) -> Tokens:
    """Tokenise texts on all threads, other Python threads going on meanwhile."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    lengths_N = np.fromiter(map(len, ids), np.int64, len(ids))
    ids_T = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths_N.sum()))
    return Tokens(ids_T, np.cumsum(lengths_N) - lengths_N, lengths_N)


def token_batches(
    lengths: Sequence[int] | npt.NDArray[np.int64], budget: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each batch, longest first: rows times longest stays within the budget, or it is one row."""
    lengths = np.asarray(lengths, np.int64)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def padded(tokens: Tokens, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    """A graph's input for some of the texts: token numbers and attention mask, each (rows, longest) int64."""
    lengths = tokens.lengths_N[rows, None]
    places = np.arange(lengths.max())
    mask = places < lengths
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.ids_T[(tokens.starts_N[rows, None] + places)[mask]]
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
