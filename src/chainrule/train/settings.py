"""TOML file <-> TrainConfig: unknown keys are refused with a suggestion, the resolved configuration is written back.

Imports no torch.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from chainrule.errors import ConfigError
from chainrule.setup_file import located
from chainrule.train.config import TrainConfig


def read_settings(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, beside which a file of losses is sought. Raises ConfigError if it is missing or no TOML."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from None
    except tomllib.TOMLDecodeError as error:
        hint = "" if path.suffix == ".toml" else "; text is given by --text, a table by --task table --table.file"
        raise ConfigError(f"{path} is not valid TOML: {error}{hint}") from None
    loss = tables.get("loss")
    return tables | {"loss": located(loss, path.parent)} if isinstance(loss, str) else tables


def reason(error: Exception) -> str:
    """What the operating system or the decoder said, without the path and the error number."""
    return getattr(error, "strerror", None) or str(error)


def load_config(path: Path) -> TrainConfig:
    """Read a TOML file as a TrainConfig; what the file leaves out has its default."""
    return config_from(read_settings(path), where=str(path))


def config_from(settings: Mapping[str, Any], where: str = "settings") -> TrainConfig:
    """Make a TrainConfig of nested tables. Raises ConfigError for an unknown key or a value of the wrong type."""
    try:
        config: TrainConfig = _build(TrainConfig, settings, where, prefix="")
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return config


def _build(kind: Any, settings: Mapping[str, Any], where: str, prefix: str) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for key, value in settings.items():
        if key not in hints:
            raise ConfigError(f"{where}: unknown key {prefix + key!r}; {_suggest(prefix + key)}")
        values[key] = _convert(hints[key], value, where, prefix + key)
    return kind(**values)


def _suggest(key: str) -> str:
    """The nearest key by spelling; a key of another section counts by its last part."""
    known = [name for name, _ in leaves(TrainConfig())]
    last = by_last_part()
    end = key.rsplit(".", 1)[-1]
    close = (
        [last[end]]
        if end in last
        else get_close_matches(key, known, n=1, cutoff=0.7)
        or [last[name] for name in get_close_matches(end, last, n=1, cutoff=0.7)]
    )
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def by_last_part() -> dict[str, str]:
    """The settings by their last part, learning_rate -> optimizer.learning_rate; of several the first."""
    return {name.rsplit(".", 1)[-1]: name for name, _ in reversed([*leaves(TrainConfig())])}


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {key} is {value!r}; a table [{key}] is expected")
        return _build(hint, value, where, prefix=f"{key}.")
    choices = get_args(hint)
    if choices and choices[-1] is Ellipsis:
        if not (isinstance(value, list) and all(type(item) is choices[0] for item in value)):
            raise ConfigError(f"{where}: {key} is {value!r}; a list of {_MANY[choices[0]]} is expected")
        return tuple(value)
    if choices:
        if value not in choices:
            raise ConfigError(f"{where}: {key} is {value!r}; expected one of {', '.join(map(repr, choices))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: {key} is {value!r}; expected {_WORDS[hint]}")
    return value


_MANY = {str: "strings", int: "whole numbers"}
_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below `config` as ("section.field", value), in the order of the dataclasses."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


def origins(config: TrainConfig, settings: Mapping[str, Any]) -> dict[str, str]:
    """Where each value comes from: "file" (`settings`), "flag", or "" for a default."""
    filed = dict(leaves(config_from(settings)))
    default = dict(leaves(TrainConfig()))
    return {
        name: "flag" if value != filed[name] else "file" if filed[name] != default[name] else ""
        for name, value in leaves(config)
    }


def to_toml(config: TrainConfig, remarks: Mapping[str, str] | None = None) -> str:
    """The configuration as TOML that can be run again; `remarks` become comments behind their lines."""
    remarks = remarks or {}
    lines, section = [], ""
    for name, value in leaves(config):
        table, _, key = name.rpartition(".")
        if table != section:
            lines += ["", f"[{table}]"]
            section = table
        remark = f"  # {remarks[name]}" if remarks.get(name) else ""
        lines.append(f"{key} = {_literal(value)}{remark}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
