"""FILE.py[:function] of a user becomes the `Setup` that the function returns, or the function itself: a loss."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from chainrule.errors import SetupError, did_you_mean
from chainrule.setups import Setup


@dataclass(frozen=True)
class Wanted:
    """What kind of function is looked for, for the messages.

    form       how it is named
    arguments  that it takes
    returns    what it returns
    command    what takes the file as it is if it holds no such function; "" if nothing does
    """

    form: str
    arguments: str
    returns: str
    command: str = ""

    def instead(self, file: Path) -> str:
        """The end of a message about a file that is no module with such a function."""
        return f"; for a script that trains: {self.command} {file}" if self.command else ""


SETUP = Wanted("FILE.py or FILE.py:function", "", "a chainrule.Setup", "chainrule run")
LOSS = Wanted("FILE.py:function", "prediction, target", "the loss, a scalar tensor")


def load_setup(target: str) -> Setup:
    """The `Setup` that FILE.py[:function] returns; the function is `setup` if none is named.

    Raises SetupError if the file or the function is missing, if the user's code raises, or if it returns anything else.
    """
    file, name = split_target(target)
    function = _function(file, name, SETUP)
    given = _run(function, f"{file.name}:{name}()")
    if not isinstance(given, Setup):
        raise SetupError(f"{file.name}:{name}() returned {type(given).__name__}, expected a chainrule.Setup")
    return given


def load_loss(target: str) -> Callable[[Any, Any], Any]:
    """The user's own loss that FILE.py:function names, a function of (prediction, target); it is not called yet.

    Raises SetupError if the file or the function is missing, or if the user's code raises.
    """
    file, name = split_target(target, default="loss", wanted=LOSS)
    return _function(file, name, LOSS)


def is_file_target(text: str) -> bool:
    """True if the text names a user's file, FILE.py or FILE.py:function, and not something of ours."""
    return text.partition(":")[0].endswith(".py") or text.rpartition(":")[0].endswith(".py")


def located(text: str, folder: Path) -> str:
    """The text with the path of a user's file made absolute, a relative one from `folder`; an absolute one or a name stays."""
    if not is_file_target(text):
        return text
    file, colon, function = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
    path = Path(file).expanduser()
    if not path.is_absolute():
        path = (folder / path.parent).resolve() / path.name
    return f"{path}{colon}{function}"


def split_target(target: str, default: str = "setup", wanted: Wanted = SETUP) -> tuple[Path, str]:
    """("model.py", "build") of "model.py:build"; the function is `default` if none is named."""
    file, separator, name = target.rpartition(":")
    if not separator or name.endswith(".py"):
        file, name = target, default
    path = Path(file)
    if not path.is_file():
        raise SetupError(f"no file {file!r}; expected {wanted.form}, the function returns {wanted.returns}")
    return path, name


def _function(file: Path, name: str, wanted: Wanted) -> Callable[..., object]:
    """The function of the user's file; a file whose source never names it is not run."""
    if (functions := _functions_without(name, file)) is not None:
        raise _missing(name, functions, file, wanted)
    module = _module(file, wanted)
    function = getattr(module, name, None)
    if function is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise _missing(name, functions, file, wanted)
    if not callable(function):
        raise SetupError(
            f"{file.name}:{name} is {type(function).__name__}, expected a function that returns {wanted.returns}"
        )
    found: Callable[..., object] = function
    return found


def _functions_without(name: str, file: Path) -> list[str] | None:
    """The functions of a file whose source cannot define `name`; None if it can, or cannot be read."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # what is wrong with it is told when it is run
        return None
    if any(name in _names(node) or "*" in _names(node) for node in ast.walk(tree)):
        return None
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def _names(node: ast.AST) -> tuple[object, ...]:
    """What a piece of source may define: by a def, a class, an assignment, an import, or as a text (`globals()["setup"]`)."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.alias):
        return (node.asname or node.name,)
    if isinstance(node, ast.Constant):
        return (node.value if node.value != "*" else None,)
    return (node.id,) if isinstance(node, ast.Name) else ()


def _missing(name: str, functions: Iterable[str], file: Path, wanted: Wanted) -> SetupError:
    write = f"write `def {name}({wanted.arguments}):` that returns {wanted.returns}{wanted.instead(file)}"
    hint = did_you_mean(name, functions, write, show=lambda near: f"{file.name}:{near}")
    return SetupError(f"{file.name} has no function {name!r}; {hint}")


def _module(file: Path, wanted: Wanted) -> ModuleType:
    """The user's file, run as a script is run: its folder comes first on the path."""
    sys.path.insert(0, str(file.parent.resolve()))
    name = file.stem if file.stem not in sys.modules else f"{file.stem} (chainrule)"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SetupError(f"{file.name} is no Python file; expected FILE.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that the user's classes can be pickled and copied
    loader = spec.loader
    _run(lambda: loader.exec_module(module), file.name, f"{_GUARD}{wanted.instead(file)}")
    return module


_GUARD = 'it ended the program while it was loaded. Put what a script does under `if __name__ == "__main__":`'


def _run(function: Callable[[], object], what: str, at_exit: str = "") -> object:
    """function(), with anything that the user's code raises told as the user's own error.

    at_exit  what to say if the code ends the program
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        advice = f"\n{at_exit}" if at_exit and isinstance(error, SystemExit) else ""
        raise SetupError(f"{what} raised {type(error).__name__}: {error}\n{trace(error)}{advice}") from error


def trace(error: BaseException, caller: str = "") -> str:
    """The frames below ours and the file of the caller, innermost last, with file and line: those are the user's."""
    if isinstance(error, SyntaxError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename, caller)]
    return "".join(traceback.format_list(frames)).rstrip()


def _machinery(file: str, caller: str) -> bool:
    return file in (__file__, caller) or file.startswith("<frozen importlib")
