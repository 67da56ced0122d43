"""English that every Python installation brings along: documentation topics and docstrings.

Files are parsed, never imported, so that gathering runs no foreign code.
"""

import ast
import hashlib
import importlib.util
import random
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from cellular.config import PhraseRules
from cellular.files import atomic_path
from cellular.phrases import segment

PACKAGES = ("numpy", "pandas", "scipy", "sklearn")  # those of our dependencies with the most prose
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "testing", "idlelib", "lib2to3"}
MARKUP = re.compile(r":[\w:]+:(?=`)|`{1,2}~?|\*{1,2}(?=\w)|(?<=\w)\*{1,2}")
NOT_PROSE = re.compile(r"^\s|>>>|^[-*=+|.:@]|::$", re.MULTILINE)  # code, lists, tables, directives
SENTENCE = re.compile(r"[A-Z][a-z]*(?:[,;]? [A-Za-z0-9]+(?:['’-][A-Za-z0-9]+)*){4,29}(?<=[a-z]{3})[.?!]")
RULES = PhraseRules(max_characters=160)


class Paragraph(NamedTuple):
    """Consecutive sentences of one piece of documentation."""

    source: str
    sentences: tuple[str, ...]


def gather(phrases: int, held_out: int) -> tuple[list[Paragraph], list[str]]:
    """Collect English until `phrases` + `held_out` different sentences are found, or the installation ends.

    Returns:
        Paragraphs without the held-out sentences, and the held-out sentences. The same installation gives
        the same answer.
    """
    paragraphs: list[Paragraph] = []
    found: set[str] = set()
    with tqdm(total=phrases + held_out, desc="gather", unit=" sentences", disable=None) as progress:
        for source, document in _documents():
            for paragraph in _paragraphs(source, document):
                paragraphs.append(paragraph)
                found.update(paragraph.sentences)
            progress.update(len(found) - progress.n)
            if len(found) >= phrases + held_out:
                break
    chosen = sorted(found, key=lambda sentence: hashlib.sha256(sentence.encode()).digest())[:held_out]
    return [kept for paragraph in paragraphs if (kept := _without(paragraph, set(chosen)))[1]], chosen


def write_corpus(paragraphs: list[Paragraph], path: Path) -> None:
    """Write one Parquet row a paragraph, columns `text` and `source`; a file that says the same stays."""
    texts = [" ".join(paragraph.sentences) for paragraph in paragraphs]
    table = pa.table({"text": texts, "source": [paragraph.source for paragraph in paragraphs]})
    if path.is_file() and pq.read_table(path).equals(table):
        return  # untouched, it lets a build find that it is up to date
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _without(paragraph: Paragraph, excluded: set[str]) -> Paragraph:
    return Paragraph(paragraph.source, tuple(s for s in paragraph.sentences if s not in excluded))


def _documents() -> Iterator[tuple[str, str]]:
    for name, text in sorted(topics.items()):
        yield f"topic:{name}", textwrap.dedent(text)
    files = [path for folder in _folders() for path in folder.rglob("*.py") if _is_product(path, folder)]
    for path in random.Random(0).sample(sorted(files), len(files)):
        for docstring in _docstrings(path):
            yield path.name, docstring


def _folders() -> list[Path]:
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    packages = [Path(spec.origin).parent for spec in specs if spec and spec.origin]
    return [Path(sysconfig.get_path("stdlib")), *packages]


def _is_product(path: Path, folder: Path) -> bool:
    return SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            docstring := ast.get_docstring(node)
        ):
            yield docstring


def _paragraphs(source: str, document: str) -> Iterator[Paragraph]:
    for block in re.split(r"\n\s*\n", document):
        if NOT_PROSE.search(block):
            continue
        sentences = tuple(s for s in segment(MARKUP.sub("", block), RULES) if SENTENCE.fullmatch(s))
        if sentences:
            yield Paragraph(source, sentences)
