from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import demo_corpus
from pipelines.demo_corpus import Paragraph, gather, write_corpus


@pytest.fixture(scope="module")
def gathered() -> tuple[list[Paragraph], list[str]]:
    return gather(400, 50)


def test_the_corpus_is_large_enough_and_holds_no_held_out_sentence(
    gathered: tuple[list[Paragraph], list[str]],
) -> None:
    paragraphs, held_out = gathered
    kept = {sentence for paragraph in paragraphs for sentence in paragraph.sentences}
    assert len(kept) >= 400
    assert len(set(held_out)) == 50
    assert kept.isdisjoint(held_out)


def test_the_same_installation_gives_the_same_corpus(gathered: tuple[list[Paragraph], list[str]]) -> None:
    assert gather(400, 50) == gathered


def test_docstrings_are_read_without_importing_the_file(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""Says what it is."""\nraise SystemExit\nclass A:\n    """Holds\n    a value."""\n', "utf-8"
    )
    assert list(demo_corpus._docstrings(path)) == ["Says what it is.", "Holds\na value."]


@pytest.mark.parametrize("content", [b"def broken(:", b"\xff\xfe", b"x = '\0'"])
def test_a_file_that_does_not_parse_is_passed_over(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_bytes(content)
    assert list(demo_corpus._docstrings(tmp_path / "module.py")) == []


def test_only_prose_is_kept() -> None:
    document = (
        "Return the ``first`` item of a long list. See :func:`last` for the other end.\n\n"
        "    >>> first([1, 2])\n\n* a list item that is long enough to be kept.\n\nToo short."
    )
    (paragraph,) = demo_corpus._paragraphs("source", document)
    assert paragraph.sentences == (
        "Return the first item of a long list.",
        "See last for the other end.",
    )


def test_an_unchanged_corpus_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "corpus.parquet"
    write_corpus([Paragraph("a.py", ("One sentence.", "Another one."))], path)
    first = path.stat()
    write_corpus([Paragraph("a.py", ("One sentence.", "Another one."))], path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (first.st_mtime_ns, first.st_ino)
    assert pq.read_table(path).to_pylist() == [{"text": "One sentence. Another one.", "source": "a.py"}]
