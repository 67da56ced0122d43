import re
import tomllib
from itertools import takewhile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
        for line in lines
        if not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, declared):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def described() -> dict[Path, bool]:
    """What the README's tree names, and whether it is a folder whose files are named one by one."""
    tree = (ROOT / "README.md").read_text("utf-8").partition("## Where things are\n```\n")[2]
    found: dict[Path, bool] = {}
    folders = [ROOT]
    for line in tree.partition("```")[0].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth + 1 :]
        names = list(takewhile(re.compile(r"[\w.]+(/|\.py|\.yaml)").fullmatch, line.split()))
        found |= {folders[-1] / name: False for name in names}
        found[folders[-1]] = True
        folders.append(folders[-1] / names[-1])
    return found


def test_what_the_readme_says_is_there_is_there() -> None:
    tree = described()
    assert len(tree) > 100 and [str(path) for path in tree if not path.exists()] == []


def test_every_module_is_in_the_readmes_tree() -> None:
    tree = described()
    modules = {
        path
        for folder, listed in tree.items()
        if listed and folder != ROOT
        for path in folder.glob("*.py")
        if path.name != "__init__.py" and not path.stem.endswith("_config")
    }
    assert sorted(map(str, modules - tree.keys())) == []
