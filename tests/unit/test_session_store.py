"""Sessions in a table: nothing is lost or done twice, and there is an end to their number and age."""

import numpy as np
import pytest

from actors.session_store import Commit, SessionStore
from cellular.decoders.context import EMPTY_SESSION
from cellular.errors import CellularError

ROW = np.ones(4, np.float32)


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def said(*texts):
    session = EMPTY_SESSION
    for text in texts:
        session = session.after(ROW, text)
    return session


def test_a_session_is_continued_from_where_it_was():
    store = SessionStore(None, 10, 60)
    assert store.commit([Commit("s", said(), said("a"))]) == [None]
    assert store.commit([Commit("s", said("a"), said("a", "b"))]) == [None]
    assert store.commit([Commit("s", said(), said("c"))]) == [said("a", "b")]


def test_commits_of_one_call_are_done_in_their_order():
    store = SessionStore(None, 10, 60)
    first, second = Commit("s", said(), said("a")), Commit("s", said(), said("b"))
    assert store.commit([first, second]) == [None, said("a")]


def test_a_repeated_commit_changes_nothing():
    store = SessionStore(None, 10, 60)
    commit = Commit("s", said(), said("a"))
    assert store.commit([commit]) == store.commit([commit]) == [None]
    assert store.describe()["sessions"] == 1


def test_a_session_outlives_the_store_in_its_file(tmp_path):
    SessionStore(tmp_path / "s.sqlite", 10, 60).commit([Commit("s", said(), said("a"))])
    again = SessionStore(tmp_path / "s.sqlite", 10, 60)
    assert again.commit([Commit("s", said(), said("b"))]) == [said("a")]


def test_the_session_used_longest_ago_makes_room(clock):
    store = SessionStore(None, 2, 60, clock)
    for number in range(3):
        clock.seconds = number
        store.commit([Commit(str(number), said(), said("a"))])
    assert store.describe()["sessions"] == 2
    assert store.commit([Commit("0", said("a"), said("a", "b"))]) == [said()]
    assert store.commit([Commit("2", said("a"), said("a", "b"))]) == [None]


def test_an_old_session_is_forgotten(clock):
    store = SessionStore(None, 10, 60, clock)
    store.commit([Commit("s", said(), said("a"))])
    clock.seconds = 61
    assert store.commit([Commit("s", said("a"), said("a", "b"))]) == [said()]


def test_a_file_that_is_something_else_is_one_clear_line(tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    for file in (tmp_path / "text", tmp_path / "missing" / "file"):
        with pytest.raises(CellularError, match="cannot keep sessions"):
            SessionStore(file, 10, 60)
