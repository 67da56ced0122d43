"""Learning from the decoder's own texts: what a text gains over its siblings decides how it is followed.

Likelihood asks for the very text of an embedding; the reward asks for one that the teacher reads the same way
and that shares its words. Policy gradient (Williams 1992) on several samples of each embedding, whose mean
reward is the baseline (Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free).

Shapes: B texts, S samples of all of them, E embedding dimension, L pieces with END.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cellular.decoders.ret.generation import TorchEngine, generate
from cellular.decoders.ret.model import RET
from cellular.decoders.ret.vocabulary import END, Vocabulary
from cellular.objectives import Batch
from cellular.teachers import Teacher
from cellular.training.config import RewardConfig

_ORDERS = (1, 2, 3, 4, 6)  # of the n-grams of pieces; six pieces are about two words
_UNFINISHED = 0.5  # reward lost by a text without END


class RewardedTexts:
    """Turns a batch of texts into one of samples, each weighted by its advantage, and the texts themselves.

    The mean length is held at the texts' own by a price a piece, raised while the samples are too short and
    lowered while they are too long: without it the decoder learns to leave out what it is not sure of.

    Args:
        model: draws the samples with the weights it has at each call.
        teacher: of the embeddings; reads the samples.
        vocabulary: of the pieces.
        config: settings.
        seed: of the samples.
    """

    def __init__(
        self, model: RET, teacher: Teacher, vocabulary: Vocabulary, config: RewardConfig, seed: int
    ) -> None:
        self._model, self._teacher, self._vocabulary = model, teacher, vocabulary
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self._price = 0.0

    @property
    def rows(self) -> int:
        """Rows of the new batch for each text."""
        return self._config.samples + 1

    def __call__(self, batch: Batch) -> Batch:
        """(B (samples + 1), …): the samples of the first text, of the second, …, then the texts."""
        config, width = self._config, batch.targets_BL.shape[1]
        embeddings_SE, texts_SL, real_S = (
            tensor.repeat_interleave(config.samples, 0)
            for tensor in (batch.embeddings_BE, batch.targets_BL, batch.mask_BL[:, 0])
        )
        samples_SL = draw(self._model, embeddings_SE, width, config.temperature, self._generator)
        counts_SL = up_to_end(samples_SL)
        lengths_S = counts_SL.sum(1) / up_to_end(texts_SL).sum(1)
        reward_S = self._rewards(embeddings_SE, texts_SL, samples_SL) + self._price * lengths_S
        self._price += config.length_rate * float(1 - lengths_S[real_S > 0].mean())
        weights_SL = (advantages(reward_S, config.samples) * real_S)[:, None] * counts_SL
        targets = torch.cat([samples_SL, batch.targets_BL])
        return Batch(
            torch.cat([embeddings_SE, batch.embeddings_BE]),
            targets[:, :-1],
            targets,
            torch.cat([weights_SL, config.likelihood * batch.mask_BL]),
        )

    def _rewards(self, embeddings_SE: Tensor, texts_SL: Tensor, samples_SL: Tensor) -> Tensor:
        read_SE = torch.from_numpy(self._teacher.encode(self._written(samples_SL))).to(embeddings_SE)
        cosine_S = (read_SE * embeddings_SE).sum(1)
        unfinished_S = (samples_SL != END).all(1)
        return cosine_S + self._config.overlap * overlap(samples_SL, texts_SL) - _UNFINISHED * unfinished_S

    def _written(self, samples_SL: Tensor) -> Sequence[str]:
        """What stands for an empty text is a full stop: teachers have no embedding of nothing."""
        ids_SL = samples_SL.to(torch.uint8).cpu().numpy()
        return [text or "." for text in self._vocabulary.decode_batch(ids_SL)]


def blend(base: Mapping[str, Tensor], rewarded: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line between those before the rewards and those after them.

    A reward raises the cosine and takes likelihood from the true words; part of the way keeps both. Wortsman
    et al. 2022, Robust fine-tuning of zero-shot models.

    Args:
        base, rewarded: by name, of equal shapes.
        share: 0 gives the first, 1 the second.
    """
    return {name: torch.lerp(base[name], weight, share) for name, weight in rewarded.items()}


def draw(
    model: RET, embeddings_BE: Tensor, max_pieces: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """One sample of each embedding: (B, L) int64, END from the end of a text on."""
    if embeddings_BE.is_cuda:
        from cellular.decoders.ret.cuda import sample_pieces

        return sample_pieces(model, embeddings_BE, max_pieces, temperature, generator).long()

    def choose(logits_RV: Tensor, rows_R: Tensor, position: int) -> Tensor:
        probability_RV = (logits_RV / temperature).softmax(-1)
        return torch.multinomial(probability_RV, 1, generator=generator)[:, 0]

    samples_BL = torch.full((len(embeddings_BE), max_pieces), END)
    engine = TorchEngine(model)
    for index, position in enumerate(
        generate(engine, embeddings_BE.numpy().astype(np.float32), max_pieces, choose)
    ):
        samples_BL[position.rows_R, index] = position.ids_R
    return samples_BL


def up_to_end(pieces_BL: Tensor) -> Tensor:
    """(B, L) float32: 1 for the pieces of each text and its first END, 0 behind."""
    before_BL = (pieces_BL == END).cumsum(1) - (pieces_BL == END).long()
    return (before_BL == 0).float()


def advantages(reward_S: Tensor, samples: int) -> Tensor:
    """(S,) gain over the mean of an embedding's samples, in units of its deviation over the whole batch."""
    gain_BS = reward_S.view(-1, samples)
    gain_BS = gain_BS - gain_BS.mean(1, keepdim=True)
    return (gain_BS / (gain_BS.std() + 1e-6)).flatten()


def overlap(hypotheses_BL: Tensor, references_BL: Tensor) -> Tensor:
    """(B,) share of n-grams of pieces that two texts have in common, of the longer one's: 0 to 1.

    Wu et al. 2016, Google's neural machine translation system, section 6 (GLEU).
    """
    matched, own_total, other_total = torch.zeros(3, len(hypotheses_BL), device=hypotheses_BL.device)
    for order in _ORDERS:
        own_BN, own_real_BN = _ngrams(hypotheses_BL, order)
        other_BN, other_real_BN = _ngrams(references_BL, order)
        wanted_BN = ((own_BN[:, :, None] == other_BN[:, None]) & other_real_BN[:, None]).sum(2)
        earlier_BN = ((own_BN[:, :, None] == own_BN[:, None]) & own_real_BN[:, None]).tril(-1).sum(2)
        matched += ((earlier_BN < wanted_BN) & own_real_BN).sum(1)
        own_total += own_real_BN.sum(1)
        other_total += other_real_BN.sum(1)
    share: Tensor = matched / torch.maximum(own_total, other_total).clamp(min=1)
    return share


def _ngrams(pieces_BL: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """A number for each n-gram, (B, L - n + 1) int64, and whether it is one: no END in it."""
    count = pieces_BL.shape[1] - order + 1
    parts = [pieces_BL[:, start : start + count] for start in range(order)]
    numbers_BN, real_BN = parts[0], parts[0] != END
    for part_BN in parts[1:]:
        numbers_BN, real_BN = numbers_BN * 256 + part_BN, real_BN & (part_BN != END)
    return numbers_BN, real_BN
