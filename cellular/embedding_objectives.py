"""What training makes small where embeddings are to become other embeddings.

Shapes: B embeddings, E their dimension, M candidates, N earlier embeddings, L pieces of a text with END.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.decoders.ret.model import RET
from cellular.objectives import Batch, LikelihoodLoss
from cellular.training.lattice_config import LossConfig

Model = Callable[..., Tensor]  # (embeddings_BE, earlier_BNE, present_BN) -> (B, E) float32, unit length


class EmbeddingBatch(NamedTuple):
    """Embeddings to read, and those that are wanted; float32, unit length."""

    source_BE: Tensor  # damaged, if training damages
    target_BE: Tensor
    near_BE: Tensor  # what soft labels are near to: the target, or what guides make of the undamaged source
    candidates_ME: Tensor  # targets of this worker and of all others
    negative_BM: Tensor  # bool: candidates that would be wrong
    earlier_BNE: Tensor  # what came before the source, newest last; N may be 0
    present_BN: Tensor  # bool: whether there is something to be read
    pieces_BL: Tensor  # int64, the targets' texts, L - 1 of each, padded by END; L may be 0
    mask_BL: Tensor  # float32, of the pieces and the END behind the last


class EmbeddingLoss:
    """InfoNCE, cosine and, if asked for, how likely a frozen decoder finds the target's text.

    Targets are the teacher's: no gradient goes through them, so that those of other workers are gathered as
    they are, before the pass, and the loss of a worker is that of its share of one large batch.

    Args:
        config: weights of the parts.
        decoder: whose weights do not require gradients; None where its part has no weight.
    """

    def __init__(self, config: LossConfig, decoder: RET | None = None) -> None:
        self._config, self._decoder = config, decoder
        self._likelihood = LikelihoodLoss()

    def __call__(self, model: Model, batch: EmbeddingBatch) -> Tensor:
        """Scalar float32."""
        history = (batch.earlier_BNE, batch.present_BN) if batch.earlier_BNE.shape[1] else ()
        output_BE = model(batch.source_BE, *history)
        config = self._config
        loss = output_BE.new_zeros(())
        if config.contrast:
            loss = loss + config.contrast * info_nce(output_BE, batch, config)
        if config.cosine:
            loss = loss + config.cosine * (1 - (output_BE * batch.target_BE).sum(1).mean())
        if self._decoder is not None and batch.pieces_BL.shape[1]:
            loss = loss + config.likelihood * self._text_loss(self._decoder, output_BE, batch)
        return loss

    def _text_loss(self, decoder: RET, output_BE: Tensor, batch: EmbeddingBatch) -> Tensor:
        """Nats a piece of the first few texts."""
        some = slice(self._config.decoded)
        pieces_BL, mask_BL = batch.pieces_BL[some], batch.mask_BL[some]
        texts = Batch(output_BE[some], pieces_BL[:, :-1].contiguous(), pieces_BL, mask_BL)
        return self._likelihood(decoder, texts)


def info_nce(output_BE: Tensor, batch: EmbeddingBatch, config: LossConfig) -> Tensor:
    """How far each output is from its target, measured by the negatives: cross entropy in nats, mean.

    van den Oord et al. 2018, Representation learning with contrastive predictive coding. With `soft`, what is
    wanted is spread over the negatives by how near they are to `near_BE`, as Hinton et al. 2015 soften
    labels: most negatives are wrong, and some say the same in other words.
    """
    scores_BM = _scores(output_BE, batch) / config.temperature
    hard = (scores_BM.logsumexp(1) - scores_BM[:, 0]).mean()
    if not config.soft:
        return hard
    wanted_BM = (_scores(batch.near_BE, batch) / config.soft_temperature).softmax(1)
    found_BM = scores_BM.log_softmax(1).clamp(min=-1e4)  # what is no negative is wanted by 0: 0 times inf
    soft: Tensor = -(wanted_BM * found_BM).sum(1).mean()
    return (1 - config.soft) * hard + config.soft * soft


def _scores(rows_BE: Tensor, batch: EmbeddingBatch) -> Tensor:
    """(B, 1 + M) similarities to the target, then to the candidates; -inf of those that are no negatives."""
    near_B1 = (rows_BE * batch.target_BE).sum(1, keepdim=True)
    others_BM = (rows_BE @ batch.candidates_ME.t()).masked_fill(~batch.negative_BM, -torch.inf)
    return torch.cat([near_B1, others_BM], 1)


def similarity_ranks(output_BE: Tensor, candidates_ME: Tensor, right_B: Tensor) -> Tensor:
    """(B,) int64: how many candidates are nearer to each output than the right one is; 0 is best."""
    scores_BM = F.normalize(output_BE, dim=1) @ candidates_ME.t()
    return (scores_BM > scores_BM.gather(1, right_B[:, None])).sum(1)
