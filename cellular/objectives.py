"""What training makes small. An objective takes a model and a batch and gives a loss; the loop knows no more.

Shapes: B texts, E embedding dimension, L pieces with END, D hidden, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.decoders.ret.model import RET
from cellular.training.buckets import Rows, Texts
from cellular.training.config import VariationConfig

END = 0


class Batch(NamedTuple):
    """Texts to learn. END pads them."""

    embeddings_BE: Tensor  # float32, unit norm
    inputs_BL: Tensor  # int64, (B, L - 1): pieces that are read
    targets_BL: Tensor  # int64, (B, L): pieces that are to follow
    mask_BL: Tensor  # float32, weight of a target: 1 for every piece and the END behind the last, then 0


class Objective(Protocol):
    """Gives the loss of a batch."""

    def __call__(self, model: RET, batch: Batch) -> Tensor:
        """Scalar float32, the mean over what counts in the batch, differentiable by the model's weights."""


class LikelihoodLoss:
    """Cross entropy of the next piece, in nats a piece.

    Args:
        compiled: fuse the output layer with the loss, which saves writing the logits, and gradients that are
            zero at the prefix.
    """

    def __init__(self, compiled: bool = False) -> None:
        self._loss: Callable[[RET, Tensor, Batch], Tensor] = _cross_entropy
        if compiled:
            self._loss = torch.compile(_cross_entropy, dynamic=False)

    def __call__(self, model: RET, batch: Batch) -> Tensor:
        """Scalar float32."""
        return self._loss(model, model.states(batch.embeddings_BE, batch.inputs_BL), batch)


def _cross_entropy(model: RET, states_BTD: Tensor, batch: Batch) -> Tensor:
    scores = model.logits(states_BTD[:, -batch.targets_BL.shape[1] :]).flatten(0, 1)
    losses = F.cross_entropy(scores, batch.targets_BL.flatten(), reduction="none")
    weights = batch.mask_BL.flatten()
    return (losses * weights).sum() / weights.count_nonzero().clamp(min=1)


def make_batch(texts: Texts, rows: Rows, variation: VariationConfig | None = None) -> Batch:
    """Gather texts as a batch; with a variation, its inputs are made harder."""
    numbers_L = torch.arange(rows.width, device=texts.starts.device)
    starts_B, lengths_B = texts.starts[rows.rows_B], texts.lengths[rows.rows_B]
    where_BL = (starts_B[:, None] + numbers_L).clamp(max=len(texts.pieces) - 1)
    targets_BL = torch.where(numbers_L < lengths_B[:, None], texts.pieces[where_BL].long(), END)
    mask_BL = ((numbers_L <= lengths_B[:, None]) & rows.real_B[:, None]).float()
    embeddings_BE, inputs_BL = texts.embeddings_NE[rows.rows_B].float(), targets_BL[:, :-1].contiguous()
    if variation:
        embeddings_BE = add_noise(embeddings_BE, variation.embedding_noise)
        inputs_BL = drop_pieces(inputs_BL, variation.piece_drop)
    return Batch(embeddings_BE, inputs_BL, targets_BL, mask_BL)


def add_noise(embeddings_BE: Tensor, length: float) -> Tensor:
    """Embeddings moved by up to `length` in any direction, of unit norm again."""
    if not length:
        return embeddings_BE
    return move(embeddings_BE, length * torch.rand(len(embeddings_BE), 1, device=embeddings_BE.device))


def move(embeddings_BE: Tensor, lengths_B1: Tensor) -> Tensor:
    """Embeddings moved by these lengths, each in a direction drawn at random, of unit norm again."""
    noise_BE = F.normalize(torch.randn_like(embeddings_BE), dim=1)
    return F.normalize(embeddings_BE + lengths_B1 * noise_BE, dim=1)


def drop_pieces(pieces_BL: Tensor, share: float) -> Tensor:
    """Pieces of which a share is replaced by END: what is lost must come from the embedding.

    Bowman et al. 2016, Generating sentences from a continuous space.
    """
    if not share:
        return pieces_BL
    return pieces_BL.masked_fill(torch.rand(pieces_BL.shape, device=pieces_BL.device) < share, END)
