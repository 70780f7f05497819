"""What a visitor sees first: public names, the front page, licence, and that nothing of our workshop lies about."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import chainrule

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "chainrule"
GENERATED = {".git", "build", "dist", "runs", "__pycache__", ".venv", ".hypothesis"}


def files(*suffixes):
    """Every file of the project with one of the suffixes, generated ones left out."""
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT).parts
        hidden = any(part in GENERATED or part.endswith(("_cache", ".egg-info")) for part in inside)
        if path.is_file() and not hidden and (path.suffix in suffixes):
            yield path


def test_every_public_name_is_there():
    assert [] == [name for name in chainrule.__all__ if not hasattr(chainrule, name)]
    assert set(chainrule.__all__) <= set(dir(chainrule))


def test_a_public_function_is_not_hidden_by_the_room_of_its_name():
    program = (
        "import chainrule.capture, chainrule.train; import chainrule as cr; assert callable(cr.capture), cr.capture"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"module 'chainrule' has no attribute 'chekc'; public are .*check"):
        chainrule.chekc  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    assert declared == chainrule.__version__


def test_the_licence_is_apache_2_in_full():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_links_between_the_documents_lead_somewhere():
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in files(".md")
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http:", "https:")) and not (page.parent / target).exists()
    ]

    assert [] == dead


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    ours = re.compile("|".join(["/" + "work/", "/" + "root/", "/" + "opt/", r"/tmp/(?!\.)" + "[a-z]"]))
    named = [
        f"{file.relative_to(ROOT)}: {found.group()}"
        for file in files(".py", ".md", ".toml", ".json", ".css", ".txt", ".yml", "")
        if (found := ours.search(file.read_text(encoding="utf-8", errors="replace")))
    ]

    assert [] == named


def test_every_file_says_its_purpose_in_its_first_sentence():
    silent = [
        str(file.relative_to(ROOT))
        for file in SOURCE.rglob("*.py")
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]

    assert [] == silent


def test_no_file_of_the_source_is_longer_than_five_hundred_lines():
    long = [str(file) for file in SOURCE.rglob("*.py") if len(file.read_text(encoding="utf-8").splitlines()) > 500]

    assert [] == long


def test_no_placeholder_is_left_in_the_source():
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|written with the room")
    left = [
        f"{file.relative_to(ROOT)}: {found.group()}"
        for file in SOURCE.rglob("*.py")
        if (found := marks.search(file.read_text(encoding="utf-8")))
    ]

    assert [] == left


def test_files_that_are_no_python_are_installed_with_the_package():
    installed = Path(chainrule.__file__).parent

    assert (installed / "py.typed").exists()
    assert (installed / "report" / "page.css").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["numerical", "--help"], ["train", "--help"]])
def test_help_does_not_load_torch(arguments):
    program = (
        f"import sys\nfrom chainrule.cli import run\nassert run({arguments!r}) == 0\nsys.exit('torch' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False, stdout=subprocess.DEVNULL).returncode
