"""Where the settings of a pipeline come from: a named one, and what a person changes of it."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cellular.errors import CellularError
from cellular.pipeline.config import (
    DirectPipelineConfig,
    HybridPipelineConfig,
    PipelineConfig,
    TextToTextPipelineConfig,
)
from cellular.pipeline.fit import Place, misfits

Source = str | os.PathLike[str] | Mapping[str, Any]

MODES: Final[dict[str, type[PipelineConfig]]] = {
    "direct": DirectPipelineConfig,
    "text_to_text": TextToTextPipelineConfig,
    "hybrid": HybridPipelineConfig,
}
NAMED: Final = {
    "direct_embedding_pipeline": "direct",
    "text_to_text_pipeline": "text_to_text",
    "hybrid_embedding_pipeline": "hybrid",
}
_FOLDER = Path(__file__).parents[1] / "configs"


class PipelineConfigError(CellularError):
    """Settings that cannot be used.

    Attributes:
        problems: each with the path of its setting, as in "lattice.steps: …".
    """

    def __init__(self, source: str, problems: Mapping[Place, str]) -> None:
        self.problems = tuple(f"{'.'.join(map(str, place))}: {what}" for place, what in problems.items())
        super().__init__(f"{source} cannot be used: {'; '.join(self.problems)}")


def load_config(source: Source, changes: Mapping[str, Any] | None = None) -> PipelineConfig:
    """The settings of a pipeline, checked together with the files that they name.

    Args:
        source: a name in NAMED, a YAML file, or a dictionary. The last two need only say what differs from a
            named one: from that of their key `base`, else that of their `mode`, else the direct one.
        changes: merged over that.

    Raises:
        CellularError: no such name or file.
        PipelineConfigError: unknown keys, wrong types, pieces that are missing or do not fit: all of them.
    """
    name, own = _read(source)
    own = merge(own, changes or {})
    base = _base(name, own)
    config, problems = _validate(base, {key: value for key, value in own.items() if key != "base"})
    if problems := problems | misfits(config, problems):
        raise PipelineConfigError(name, problems)
    return config


def check_pieces(config: PipelineConfig) -> None:
    """Make sure that settings made by hand name pieces that are there and fit; errors as `load_config`."""
    if problems := misfits(config, {}):
        raise PipelineConfigError("this pipeline", problems)


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own`, dictionaries likewise inside."""
    merged = dict(base)
    for key, value in own.items():
        inside = merged.get(key)
        if isinstance(inside, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(inside, value)
        else:
            merged[key] = value
    return merged


def _read(source: Source) -> tuple[str, dict[str, Any]]:
    """A source's name for errors, and its own settings."""
    if isinstance(source, Mapping):
        return "this pipeline", dict(source)
    if source in NAMED:
        return str(source), {"base": source}
    return str(source), _read_yaml(Path(source))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise CellularError(
            f"no pipeline {path} ({error.strerror}): give a YAML file, or one of {', '.join(NAMED)}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CellularError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise CellularError(f"{path} must hold settings, as in `mode: direct`, not {settings!r}")
    return settings


def _base(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The named settings that a person's own are merged over."""
    base = own["base"] if "base" in own else named_pipeline(own.get("mode", "direct"))
    if not isinstance(base, str) or base not in NAMED:
        raise PipelineConfigError(name, {("base",): f"choose {', '.join(NAMED)}, not {base!r}"})
    return _read_yaml(_FOLDER / f"{base}.yaml")


def named_pipeline(mode: object) -> str:
    """The name of a mode's own settings.

    Raises:
        PipelineConfigError: no such mode.
    """
    for name, of_mode in NAMED.items():
        if of_mode == mode:
            return name
    raise PipelineConfigError(
        "this pipeline", {("mode",): f"choose {', '.join(NAMED.values())}, not {mode!r}"}
    )


def _validate(base: dict[str, Any], own: dict[str, Any]) -> tuple[PipelineConfig, dict[Place, str]]:
    """The settings, those of the base where a person's own are wrong; and what is wrong."""
    kind, problems = MODES[base["mode"]], dict[Place, str]()
    while True:
        try:
            return kind.model_validate(merge(base, own), strict=True), problems
        except ValidationError as error:
            found = {one["loc"]: _describe(one, kind) for one in error.errors(include_url=False)}
        problems |= found
        for place in found:
            own = _without(own, place)


def _without(settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The settings but for what is at a place."""
    key, *rest = place
    if not rest or not isinstance(settings.get(str(key)), Mapping):
        return {name: value for name, value in settings.items() if str(name) != str(key)}
    return {**settings, str(key): _without(settings[str(key)], tuple(rest))}


def _describe(error: ErrorDetails, kind: type[BaseModel]) -> str:
    """What is wrong with a setting."""
    if error["type"] == "extra_forbidden":
        known = _settings_beside(kind, error["loc"])
        close = get_close_matches(str(error["loc"][-1]), known, 1)
        return f"there is no such setting; {'did you mean' if close else 'take'} {', '.join(close or known)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, not {error['input']!r}"


def _settings_beside(kind: type[BaseModel], place: Place) -> list[str]:
    """The names of the settings that could stand at a place."""
    for key in place[:-1]:
        annotation = kind.model_fields[str(key)].annotation
        choices = get_args(annotation) or (annotation,)
        kind = next(one for one in choices if isinstance(one, type) and issubclass(one, BaseModel))
    return list(kind.model_fields)
