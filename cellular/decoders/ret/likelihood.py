"""How likely the decoder is to write given texts, by its full pass.

Shapes as in `model`; N texts, of which B are scored at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cellular.decoders.ret.model import RET
from cellular.decoders.ret.vocabulary import END, PieceArray
from cellular.types import FloatArray

_BATCH = 256


@torch.inference_mode()
def log_probabilities(model: RET, embeddings_NE: FloatArray, pieces: Sequence[PieceArray]) -> FloatArray:
    """Natural logarithms of the probabilities of texts, END included.

    Args:
        model: computes where its weights are.
        embeddings_NE: (N, E) float32, unit norm.
        pieces: N texts.

    Returns:
        (N,) float32.
    """
    order = np.argsort([len(ids) for ids in pieces], kind="stable")  # texts of a batch are about as long
    scores_N = np.empty(len(pieces), np.float32)
    for start in range(0, len(order), _BATCH):
        rows_B = order[start : start + _BATCH]
        ids = [torch.from_numpy(pieces[row].astype(np.int64)) for row in rows_B]
        scores_N[rows_B] = _score(model, torch.from_numpy(embeddings_NE[rows_B]), ids)
    return scores_N


def _score(model: RET, embeddings_BE: Tensor, ids: list[Tensor]) -> FloatArray:
    """(B,) log-probabilities of one batch; what pads a text stands after its END, which sees none of it."""
    device = model.projection.device
    pieces_BL = pad_sequence(ids, batch_first=True, padding_value=END).to(device)
    logits_BTV = model(embeddings_BE.to(device), pieces_BL)
    targets_BT = F.pad(pieces_BL, (0, 1), value=END)
    loss_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")
    written_BT = F.pad(targets_BT[:, :-1] != END, (1, 0), value=True)
    scores_B: FloatArray = -loss_BT.where(written_BT, 0).sum(1).cpu().numpy()
    return scores_B
