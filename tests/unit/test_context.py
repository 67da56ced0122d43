"""Sessions and the prior that they give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cellular.bank import PhraseBank
from cellular.decoders.assembly import Pool
from cellular.decoders.context import ContextPrior, Rarity, Session, Turn
from cellular.teachers import HashTeacher

TEACHER = HashTeacher()
turn_lists = st.lists(st.tuples(st.integers(0, 5), st.text(max_size=20)), max_size=6)


def session_of(turns: list[tuple[int, str]], capacity: int = 8) -> Session:
    session = Session(capacity=capacity)
    for axis, text in turns:
        session = session.after(np.eye(6, dtype=np.float32)[axis], text)
    return session


@given(turn_lists)
def test_a_session_survives_json(turns: list[tuple[int, str]]) -> None:
    session = session_of(turns)
    restored = Session.model_validate_json(session.model_dump_json())
    assert restored == session and restored.digest == session.digest


@given(turn_lists, turn_lists)
def test_digests_are_equal_only_for_equal_turns(a: list[tuple[int, str]], b: list[tuple[int, str]]) -> None:
    assert (session_of(a).digest == session_of(b).digest) == (a == b)


def test_a_session_forgets_its_oldest_turns() -> None:
    session = session_of([(number % 6, str(number)) for number in range(20)], capacity=3)
    assert [turn.text for turn in session.turns] == ["17", "18", "19"]
    assert [turn.text for turn in session.latest(2).turns] == ["18", "19"]


def test_a_session_never_changes() -> None:
    session = session_of([(0, "first")])
    session.after(np.ones(6, np.float32), "second")
    assert len(session.turns) == 1
    with pytest.raises(ValidationError):
        session.turns = ()  # type: ignore[misc]


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 384, 1023])
def test_a_turn_knows_its_dimension(dimension: int) -> None:
    vector = np.linspace(-1, 1, dimension, dtype=np.float32)
    turn = Turn.of(vector, "text")
    assert turn.dimension == dimension
    assert np.array_equal(turn.vector(), vector.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("embedding", ["?", "AAAA", "AH4="])  # not base64, half a float16, NaN
def test_broken_turns_are_refused(embedding: str) -> None:
    with pytest.raises(ValidationError, match="embedding"):
        Turn(embedding=embedding, text="")


def test_rare_features_weigh_more() -> None:
    rarity = Rarity([{"the", "cat"}, {"the", "dog"}, {"the", "emu"}])
    assert rarity.share({"the", "cat"}, {"cat"}) > rarity.share({"the", "cat"}, {"the"})
    assert rarity.share({"cat"}, {"cat", "dog"}) == 1.0
    assert rarity.share(set(), {"cat"}) == 0.0


def preferred(bank: PhraseBank, phrases: list[str], said: str) -> str:
    """The phrase to which a session that said this gives the higher prior, their vectors being equal."""
    ids = np.zeros(len(phrases), np.int64)
    pool = Pool(bank, TEACHER.encode(["any"])[0], ids, len(phrases), np.zeros(len(phrases), np.float32))
    vars(pool)["phrases"] = phrases  # in place of the bank's
    session = Session().after(TEACHER.encode([said])[0], said)
    return phrases[int(ContextPrior(bank)(pool, session).argmax())]


def test_the_prior_prefers_what_the_session_is_about(topic_bank: PhraseBank) -> None:
    phrases = ["It is the value of an object", "It is the name of a module"]
    assert preferred(topic_bank, phrases, "Which object has the value") == phrases[0]
    assert preferred(topic_bank, phrases, "Which module has the name") == phrases[1]


def test_the_prior_prefers_the_manner_of_the_session(topic_bank: PhraseBank) -> None:
    phrases = ["that sounds good", "That sounds good."]
    assert preferred(topic_bank, phrases, "yes, fine by me") == phrases[0]
    assert preferred(topic_bank, phrases, "Yes, fine by me.") == phrases[1]
