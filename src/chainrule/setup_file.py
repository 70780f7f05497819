"""FILE.py[:function] on the command line becomes the `Setup` that the user's function returns."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from chainrule.errors import SetupError
from chainrule.setups import Setup


def load_setup(target: str) -> Setup:
    """The `Setup` that FILE.py[:function] returns; the function is `setup` if none is named.

    Raises SetupError if the file or the function is missing, if the user's code raises, or if it returns anything else.
    """
    file, name = split_target(target)
    function = _function(_module(file), name, file)
    given = _run(function, f"{file.name}:{name}()")
    if not isinstance(given, Setup):
        raise SetupError(f"{file.name}:{name}() returned {type(given).__name__}, expected a chainrule.Setup")
    return given


def split_target(target: str) -> tuple[Path, str]:
    """("model.py", "build") of "model.py:build"; the function is "setup" if none is named."""
    file, separator, name = target.rpartition(":")
    if not separator or name.endswith(".py"):
        file, name = target, "setup"
    path = Path(file)
    if not path.is_file():
        raise SetupError(
            f"no file {file!r}; expected FILE.py or FILE.py:function, the function returns a chainrule.Setup"
        )
    return path, name


def _module(file: Path) -> ModuleType:
    """The user's file, run as a script is run: its folder comes first on the path."""
    sys.path.insert(0, str(file.parent.resolve()))
    name = file.stem if file.stem not in sys.modules else f"{file.stem} (chainrule)"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SetupError(f"{file.name} is no Python file; expected FILE.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that the user's classes can be pickled and copied
    loader = spec.loader
    _run(lambda: loader.exec_module(module), file.name)
    return module


def _function(module: ModuleType, name: str, file: Path) -> Callable[[], object]:
    function = getattr(module, name, None)
    if function is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = get_close_matches(name, functions, n=1)
        hint = (
            f"did you mean {file.name}:{near[0]}?" if near else f"write `def {name}():` that returns a chainrule.Setup"
        )
        raise SetupError(f"{file.name} has no function {name!r}; {hint}")
    if not callable(function):
        raise SetupError(f"{file.name}:{name} is {type(function).__name__}, expected a function that returns a Setup")
    found: Callable[[], object] = function
    return found


def _run(function: Callable[[], object], what: str) -> object:
    """function(), with anything that the user's code raises told as the user's own error."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise SetupError(f"{what} raised {type(error).__name__}: {error}\n{_trace(error)}") from error


def _trace(error: BaseException) -> str:
    """The frames below ours, innermost last: those are the user's."""
    if isinstance(error, SyntaxError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename)]
    return "".join(traceback.format_list(frames)).rstrip()


def _machinery(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen importlib")
