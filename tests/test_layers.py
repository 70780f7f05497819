"""The rooms of the house: who may import whom (the table), and a proof that a forbidden import would be seen.

Every import counts, those inside functions and under TYPE_CHECKING too; only `chainrule/__init__.py` and the modules of
the command line may put an import inside a function, so that `--help` does not load torch.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import chainrule

SOURCE = Path(chainrule.__file__).parent

# A room or a module of the root imports only what has a lower level. Rooms of one level do not import each other.
LEVELS = {
    "errors": 0,
    "graph": 0,
    "setups": 0,
    "finding": 0,
    "tolerance": 0,
    "capture": 1,
    "derivatives": 1,
    "numdiff": 1,
    "losses": 1,
    "update_rules": 1,
    "models": 1,
    "data": 1,
    "report": 1,
    "autodiff": 2,
    "parallel": 2,
    "compare": 3,
    "watch": 3,
    "checks": 4,
    "explain": 4,
    "train": 4,
    "preflight": 5,  # all checks on one subject
    "engines": 5,  # the gradient engines behind one call, for training
    "watched": 6,  # what is known of a running program, and its report
    "live": 7,  # preflight and observation of a running program
    "api": 6,
    "setup_file": 1,
    "pytest_plugin": 7,
    "cli_explain": 7,
    "cli_check": 7,  # commands, hung into the app in cli
    "cli_own_loss": 7,
    "cli_runs": 7,
    "cli_model": 7,
    "cli_numerical": 7,
    "cli_predict": 7,
    "cli_progress": 7,
    "cli_losses": 8,
    "cli_run": 8,
    "cli_train": 8,
    "cli_vectors": 7,
    "cli": 9,
    "__main__": 10,
    "__init__": 10,  # the public names: nobody inside imports them
}
DATA = {room for room, level in LEVELS.items() if level == 0}
# may import inside functions
LAZY = {"__init__", "pytest_plugin"} | {room for room in LEVELS if room.startswith("cli")}
DERIVATIVES_OF_TORCH = {"grad", "grad_and_value", "vjp", "jvp", "jacrev", "jacfwd", "hessian", "linearize"}
TORCHLESS = {
    "errors",
    "finding",
    "setups",
    "setup_file",
    "report",
    "__init__",
    "cli",
    "cli_check",
    "cli_explain",
    "cli_losses",
    "cli_model",
    "cli_numerical",
    "cli_own_loss",
    "cli_predict",
    "cli_run",
    "cli_runs",
    "cli_vectors",
    "pytest_plugin",
}


def room_of(file, source=SOURCE):
    """The room that a file belongs to: its folder, or its own name if it lies in the root."""
    first = file.relative_to(source).parts[0]
    return first.removesuffix(".py")


def imports_of(file, source=SOURCE):
    """(imported module, line, inside a function, only for types) of every import in a file; relative ones resolved."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["chainrule", *file.relative_to(source).parts[:-1]]
    for node, function, typing in walk(tree, function=False, typing=False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, function, typing
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from chainrule import graph` imports the room graph
                yield f"{stem}.{alias.name}", node.lineno, function, typing


def walk(tree, function, typing):
    """Every node with whether it lies inside a function, and under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        yield node, function, typing
        inside = function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        types = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        yield from walk(node, inside, types)


def imported_room(module, source=SOURCE):
    """The room that an import reaches: "capture" of chainrule.capture.tape, "__init__" of the package root."""
    parts = module.split(".")
    if parts[0] != "chainrule":
        return None
    if len(parts) == 1:
        return "__init__"
    known = (source / parts[1]).is_dir() or (source / f"{parts[1]}.py").exists()
    return parts[1] if known or parts[1] in LEVELS else "__init__"


def wrong_edges(source=SOURCE):
    """Every import inside the package that the table forbids, in words."""
    for file in sorted(source.rglob("*.py")):
        room = room_of(file, source)
        if room not in LEVELS:
            yield f"{file.relative_to(source)}: the room {room!r} has no level; give it one in tests/test_layers.py"
            continue
        for module, line, function, typing in imports_of(file, source):
            place = f"{file.relative_to(source)}:{line}"
            other = imported_room(module, source)
            if other is not None and (reason := why_wrong(room, other)):
                yield f"{place}: {room} imports {module}: {reason}"
            if function and room not in LAZY and not typing:
                yield f"{place}: imports {module} inside a function; import it at the top, or turn the dependency round"


def why_wrong(room, other):
    """Why `room` may not import `other`; "" if it may."""
    if room == other and room != "__init__":
        return ""
    if other == "__init__":
        return "nobody inside imports the package root"
    if other not in LEVELS:
        return f"{other!r} has no level"
    if room == "report" and other not in TORCHLESS & DATA:
        return "a report sees data only"
    if LEVELS[other] == LEVELS[room] != 0:
        return f"both are of level {LEVELS[room]}; rooms of one level do not know each other"
    if LEVELS[other] > LEVELS[room]:
        return f"level {LEVELS[room]} does not import level {LEVELS[other]}"
    return ""


def test_every_import_goes_down():
    assert [] == list(wrong_edges())


def test_the_derivative_rules_and_the_engine_never_mention_autograd():
    mentions = [
        f"{file.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}"
        for room in ("derivatives", "autodiff", "numdiff")
        for file in sorted((SOURCE / room).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if mentions_autograd(node)
    ]

    assert [] == mentions


def mentions_autograd(node):
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        return (
            name.startswith("torch.autograd")
            or node.attr in ("backward", "requires_grad_")
            or (name.startswith("torch.func.") and node.attr in DERIVATIVES_OF_TORCH)
        )
    if isinstance(node, ast.ImportFrom) and node.module == "torch.func":  # vmap is no derivative
        return any(alias.name in DERIVATIVES_OF_TORCH for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").startswith("torch.autograd")
    return isinstance(node, ast.Import) and any(alias.name.startswith("torch.autograd") for alias in node.names)


def test_the_mathematics_calls_no_backward_op_of_torch():
    calls = [
        f"{file.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}"
        for room in ("derivatives", "autodiff", "numdiff")
        for file in sorted((SOURCE / room).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and re.match(r"(aten|torch)\..*_backward", ast.unparse(node))
    ]

    assert [] == calls


def roots():
    return {room_of(file) for file in SOURCE.rglob("*.py")}


@pytest.mark.parametrize("room", sorted(TORCHLESS & roots()))
def test_data_and_command_line_load_without_torch(room):
    module = "chainrule" if room == "__init__" else f"chainrule.{room}"
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode


def test_configuration_does_not_import_torch():
    wrong = [
        f"{file.relative_to(SOURCE)}:{line}"
        for file in sorted(SOURCE.rglob("*config*.py"))
        for module, line, _, typing in imports_of(file)
        if module.split(".")[0] == "torch" and not typing
    ]

    assert [] == wrong


# The tests of the test: each planted line must be seen.
PLANTED = {
    "numdiff/step.py": "from chainrule.derivatives import RULES",
    "derivatives/matmul.py": "import chainrule.autodiff.reverse",
    "graph.py": "from chainrule import api",
    "report/text.py": "from chainrule.graph import Graph",
    "checks/causality.py": "from chainrule.train import loop",
    "capture/tape.py": "import chainrule",
    "autodiff/source.py": "from ..compare import hints",
    "models/mlp.py": "from chainrule.data import text",
    "setups.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from chainrule.autodiff import reverse",
    "data/text.py": "def load():\n    import torch",
    "attic/old.py": "",
}


@pytest.mark.parametrize(("path", "line"), PLANTED.items(), ids=PLANTED.keys())
def test_a_planted_wrong_import_is_seen(path, line, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line, encoding="utf-8")

    assert 1 == len(list(wrong_edges(tmp_path)))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("autodiff/reverse.py", "from chainrule.derivatives import RULES"),
        ("derivatives/matmul.py", "from .rule import Rules"),
        ("report/text.py", "from chainrule.finding import Finding"),
        ("cli.py", "def check():\n    from chainrule import api"),
        ("graph.py", "from chainrule.errors import ChainruleError"),
    ],
)
def test_a_right_import_is_not_accused(path, line, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line, encoding="utf-8")

    assert [] == list(wrong_edges(tmp_path))


@pytest.mark.parametrize(
    "code",
    [
        "torch.autograd.grad(y, x)",
        "from torch.autograd import grad",
        "import torch.autograd",
        "y.backward()",
        "from torch.func import vjp",
    ],
)
def test_a_planted_use_of_autograd_is_seen(code):
    assert any(mentions_autograd(node) for node in ast.walk(ast.parse(code)))
