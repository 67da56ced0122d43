"""Texts that belong together: what leads to what, what came before, and that files keep it all."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.training.groups import Groups, groups_of, join_groups, singles_of, write_groups
from cellular.training.shards import write_shard

TEXTS = ["a", "b", "c", "d", "b", "e"]
SIZES = [3, 1, 2]  # a b c | d | b e
EMBEDDINGS = np.eye(6, 8, dtype=np.float32)


def written(folder: Path) -> Groups:
    path, vocabulary = folder / "groups.parquet", Vocabulary.load()
    keys = np.array([ord(text) for text in TEXTS], np.int64)
    write_groups(path, TEXTS, vocabulary.encode_batch(TEXTS), EMBEDDINGS, keys, np.array(SIZES))
    return groups_of(pq.read_table(path))


def test_files_keep_groups_pieces_keys_and_embeddings(tmp_path: Path) -> None:
    groups = written(tmp_path)
    assert groups.groups_N.tolist() == [0, 0, 0, 1, 2, 2]
    assert groups.keys_N.tolist() == [ord(text) for text in TEXTS]
    assert torch.equal(groups.texts.embeddings_NE.float(), torch.from_numpy(EMBEDDINGS))
    assert groups.texts.lengths.tolist() == [len(ids) for ids in Vocabulary.load().encode_batch(TEXTS)]


def test_a_target_follows_a_text_of_its_group_or_stands_beside_one(tmp_path: Path) -> None:
    groups = written(tmp_path)
    assert groups.targets(ordered=True).tolist() == [1, 2, 5]
    assert groups.targets(ordered=False).tolist() == [0, 1, 2, 4, 5]


def test_others_are_all_others_of_the_group_and_never_the_text_itself(tmp_path: Path) -> None:
    groups = written(tmp_path)
    rows_B = torch.tensor([0, 1, 2, 4, 5]).repeat(20)
    others_B = groups.others(rows_B, torch.arange(100) * 7)
    assert (groups.groups_N[others_B] == groups.groups_N[rows_B]).all() and (others_B != rows_B).all()
    assert set(others_B[rows_B == 0].tolist()) == {1, 2}


def test_what_came_before_is_of_the_same_group_the_newest_last(tmp_path: Path) -> None:
    earlier_BHE, present_BH = written(tmp_path).earlier(torch.tensor([2, 0, 5]), 2)
    assert present_BH.tolist() == [[True, True], [False, False], [False, True]]
    assert earlier_BHE.argmax(2)[present_BH].tolist() == [0, 1, 4]
    assert not earlier_BHE[~present_BH].any()


def test_groups_of_two_lots_stay_apart(tmp_path: Path) -> None:
    groups = written(tmp_path)
    joined = join_groups([groups, groups])
    assert joined.groups_N.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 5, 5]
    assert joined.bytes == 2 * groups.bytes - 8  # the end of the first lot is the start of the second


def test_texts_without_groups_are_groups_of_one(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "texts.parquet", TEXTS[:4], Vocabulary.load().encode_batch(TEXTS[:4]), EMBEDDINGS[:4]
    )
    singles = singles_of(pq.read_table(tmp_path / "texts.parquet"))
    assert singles.groups_N.tolist() == [0, 1, 2, 3]
    assert len(singles.keys_N.unique()) == 4
    assert join_groups([singles, singles]).groups_N.tolist() == list(range(8))
