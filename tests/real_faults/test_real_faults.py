"""Faults that a library shipped to real users are found in the release that has them; the newest release is silent.

transformers 5.12.0: RoFormer, MegatronBert, RemBert, BigBird and Doge attend to the future (transformers#48745, #48748), and GIT
learns the token after the next (transformers#46894). Each release gets a virtual environment of its own, on top of this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("causal_models.py")
LEAKING = {
    "RoFormer": "roformer.encoder.layer.0.attention.self",
    "MegatronBert": "bert.encoder.layer.0.attention.self",
    "RemBert": "rembert.encoder.layer.0.attention.self",
    "BigBird": "bert.encoder.layer.0.attention.self",
    "Doge": "model.layers.0.self_attn",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.hf,
    pytest.mark.skipif(
        os.environ.get("CHAINRULE_REAL_FAULTS") != "1",
        reason="installs other releases of transformers; set CHAINRULE_REAL_FAULTS=1 to run it",
    ),
]


def findings(folder: Path, release: str) -> dict[str, list[Any]]:
    """What is said of each model under a release of transformers, in a virtual environment made for it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    own = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    Path(own.strip(), "base.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch and chainrule, after its own
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        own.strip(),
        f"transformers{release}",
    ]
    subprocess.run(command, check=True)
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    said = json.loads(subprocess.check_output([python, SCRIPT], text=True, env=environment))
    if release.startswith("=="):
        assert said["transformers"] == release.removeprefix("==")
    return dict(said["findings"])


def test_the_release_with_the_faults_fails_at_their_modules(tmp_path):
    said = findings(tmp_path / "venv", "==5.12.0")
    for name, module in LEAKING.items():
        assert [found[:3] for found in said[name]] == [["future-leak", "error", module]]
    shifted = [found for found in said["Git"] if found[1] == "error"]
    assert [found[0] for found in shifted] == ["target-alignment"]
    assert shifted[0][3] == "the model is taught the token after the next, not the next token"


def test_the_newest_release_is_silent(tmp_path):
    assert findings(tmp_path / "venv", ">=5.23.0") == {name: [] for name in (*LEAKING, "Git")}
