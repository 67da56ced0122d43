"""The loss from embeddings to embeddings: what counts as wrong, and what does not."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from cellular.decoders.ret.model import RET, RETConfig
from cellular.embedding_objectives import EmbeddingBatch, EmbeddingLoss, info_nce, similarity_ranks
from cellular.training.lattice import gather
from cellular.training.lattice_config import LossConfig

GENERATOR = torch.Generator().manual_seed(0)
SHARP = LossConfig(temperature=0.1)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=GENERATOR), dim=-1)


def batch_of(target_BE: Tensor, keys_B: Tensor, pieces_BL: Tensor | None = None) -> EmbeddingBatch:
    rows = len(target_BE)
    pieces_BL = torch.zeros(rows, 0, dtype=torch.int64) if pieces_BL is None else pieces_BL
    return EmbeddingBatch(
        source_BE=unit(rows, target_BE.shape[1]),
        target_BE=target_BE,
        near_BE=target_BE,
        candidates_ME=target_BE,
        negative_BM=keys_B[:, None] != keys_B,
        earlier_BNE=torch.zeros(rows, 0, target_BE.shape[1]),
        present_BN=torch.zeros(rows, 0, dtype=torch.bool),
        pieces_BL=pieces_BL,
        mask_BL=torch.ones(pieces_BL.shape),
    )


def test_infonce_is_cross_entropy_over_the_batch_where_all_targets_differ() -> None:
    output_BE, target_BE = unit(8, 16), unit(8, 16)
    found = info_nce(output_BE, batch_of(target_BE, torch.arange(8)), SHARP)
    torch.testing.assert_close(found, F.cross_entropy(output_BE @ target_BE.t() / 0.1, torch.arange(8)))


def test_infonce_does_not_count_another_occurrence_of_the_target_as_wrong() -> None:
    output_BE, target_BE = unit(4, 16), unit(4, 16)
    twice_BE = torch.cat([target_BE, target_BE])
    keys_B = torch.arange(4).repeat(2)
    doubled = info_nce(torch.cat([output_BE, output_BE]), batch_of(twice_BE, keys_B), SHARP)
    each_M = torch.cat([output_BE @ target_BE.t(), (output_BE @ target_BE.t())], 1) / 0.1
    wrong = each_M.masked_fill(torch.eye(4, dtype=torch.bool).repeat(1, 2), -torch.inf)
    near_B1 = (output_BE * target_BE).sum(1, keepdim=True) / 0.1
    expected = (torch.cat([near_B1, wrong], 1).logsumexp(1) - near_B1[:, 0]).mean()
    torch.testing.assert_close(doubled, expected)


def test_infonce_of_nothing_wrong_is_zero() -> None:
    batch = batch_of(unit(4, 16), torch.zeros(4))
    assert float(info_nce(unit(4, 16), batch, SHARP)) == 0.0


def test_a_soft_infonce_is_least_where_outputs_are_as_similar_to_candidates_as_their_targets_are() -> None:
    config = LossConfig(temperature=0.1, soft=0.999999, soft_temperature=0.1)
    target_BE, keys_B = unit(8, 16), torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])
    output_BE = target_BE.clone().requires_grad_()
    loss = info_nce(output_BE, batch_of(target_BE, keys_B), config)
    loss.backward()
    assert output_BE.grad is not None and float(output_BE.grad.abs().max()) < 1e-5
    assert all(info_nce(unit(8, 16), batch_of(target_BE, keys_B), config) > loss.detach() for _ in range(10))


def test_what_guides_say_stands_for_the_targets_in_soft_labels() -> None:
    target_BE, guided_BE = unit(8, 16), unit(8, 16)
    batch = batch_of(target_BE, torch.arange(8))._replace(near_BE=guided_BE)
    loss = EmbeddingLoss(LossConfig(soft=0.999999, soft_temperature=0.05, cosine=0.0))
    least = loss(lambda _: guided_BE, batch)
    assert all(loss(lambda _, other=other: other, batch) > least for other in (target_BE, unit(8, 16)))


def test_the_parts_of_the_loss_add_up_by_their_weights() -> None:
    batch = batch_of(unit(6, 16), torch.arange(6))
    model = torch.nn.Linear(16, 16, bias=False)

    def loss(contrast: float, cosine: float) -> Tensor:
        return EmbeddingLoss(LossConfig(contrast=contrast, cosine=cosine))(model, batch)

    torch.testing.assert_close(loss(2.0, 3.0), 2 * loss(1.0, 0.0) + 3 * loss(0.0, 1.0))


def test_a_frozen_decoder_gives_a_gradient_to_what_it_reads_and_to_nothing_else() -> None:
    decoder = RET(RETConfig(embedding_dimension=384, applications=1)).requires_grad_(False)
    batch = batch_of(unit(3, 384), torch.arange(3), torch.randint(2, 256, (3, 5), generator=GENERATOR))
    model = torch.nn.Linear(384, 384, bias=False)
    config = LossConfig(contrast=0.0, cosine=0.0, likelihood=1.0, decoded=2)
    EmbeddingLoss(config, decoder)(model, batch).backward()
    assert model.weight.grad is not None and bool(model.weight.grad.any())
    assert all(weight.grad is None for weight in decoder.parameters())


def test_the_rank_is_the_number_of_candidates_that_are_nearer() -> None:
    candidates_ME = torch.eye(4)
    output_BE = torch.tensor([[0.9, 0.4, 0.1, 0.0], [0.5, 0.1, 0.4, 0.3]])
    assert similarity_ranks(output_BE, candidates_ME, torch.tensor([0, 1])).tolist() == [0, 3]


def _worker(rank: int, address: str, whole_BE: Tensor, targets_BE: Tensor, results: Tensor) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    some = slice(4 * rank, 4 * rank + 4)
    keys_B = torch.arange(8)
    batch = batch_of(targets_BE[some], keys_B[some])._replace(
        candidates_ME=gather(targets_BE[some], 2),
        negative_BM=keys_B[some, None] != gather(keys_B[some], 2),
    )
    results[rank] = info_nce(whole_BE[some], batch, SHARP)
    dist.destroy_process_group()


def test_two_workers_that_gather_have_the_loss_of_one_that_has_all(tmp_path: pytest.TempPathFactory) -> None:
    output_BE, target_BE = unit(8, 16), unit(8, 16)
    results = torch.zeros(2).share_memory_()
    arguments = (f"file://{tmp_path}/rendezvous", output_BE, target_BE, results)
    mp.spawn(_worker, arguments, nprocs=2)
    alone = info_nce(output_BE, batch_of(target_BE, torch.arange(8)), SHARP)
    torch.testing.assert_close(results.mean(), alone)
