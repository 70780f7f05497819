"""The two matrices of Word2Vec as flat arrays, and the checkpoints of a run of the kernel.

    checkpoints/step-000200/  model.safetensors   input_VD, output_VD
                              state.json          steps, what each epoch has lost, settings
                              manifest.json       sha256 of the others, written last

There is no more state: every random draw is a function of the seed and the number of the job.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from chainrule.errors import CheckpointError
from chainrule.train.atomic import write_folder, write_json
from chainrule.train.checkpoint import FOLDER, FORMAT, KEEP, checkpoints, read_state
from chainrule.train.words.arithmetic import zeros
from chainrule.train.words.proof import rows_of_output
from chainrule.train.words.shape import Shape

_Flat = NDArray[np.float32]


@dataclass
class Epoch:
    """One pass over the text: sums over its predictions, words left by sub-sampling; whether its loss was told."""

    jobs: int = 0
    told: bool = False
    loss: float = 0.0
    pairs: int = 0
    kept: int = 0


@dataclass
class WordsState:
    """Every variable of the loop that a resumed run must have, besides the weights.

    step     groups of jobs that are done
    seconds  spent in the loop, all sessions together
    words    of the text that were read
    epochs   each pass so far
    """

    step: int = 0
    seconds: float = 0.0
    words: int = 0
    epochs: list[Epoch] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Weights:
    """Input and output vectors, flat, each row padded with zeros to `shape.width` floats."""

    shape: Shape
    inputs: _Flat
    outputs: _Flat

    @property
    def parameters(self) -> int:
        """Numbers that are trained: the padding is not."""
        return (len(self.inputs) + len(self.outputs)) // self.shape.width * self.shape.dimensions

    def matrix(self, flat: _Flat) -> _Flat:
        """The vectors without their padding."""
        return flat.reshape(-1, self.shape.width)[:, : self.shape.dimensions]


def initial_weights(shape: Shape, words: int, seed: int) -> Weights:
    """Input vectors uniform in ±1/(2D), output vectors zero, as in the authors' program."""
    weights = Weights(shape, zeros(words * shape.width), zeros(rows_of_output(shape, words) * shape.width))
    uniform = np.random.default_rng(seed).random((words, shape.dimensions), np.float32)
    weights.matrix(weights.inputs)[:] = (uniform - np.float32(0.5)) / np.float32(shape.dimensions)
    return weights


def save_words(folder: Path, weights: Weights, state: WordsState, facts: dict[str, Any]) -> Path:
    """Write a checkpoint and drop those before the last two. `facts` are kept for the reader."""
    target = folder / FOLDER / f"step-{state.step:06d}"
    tensors = {
        "input": np.ascontiguousarray(weights.matrix(weights.inputs)),
        "output": np.ascontiguousarray(weights.matrix(weights.outputs)),
    }
    text = {"format": FORMAT, "state": asdict(state), **facts}
    write_folder(
        target,
        {"model.safetensors": lambda path: save_file(tensors, path), "state.json": write_json(text)},
    )
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)
    return target


def load_words(path: Path, weights: Weights) -> WordsState:
    """Bring the weights to what they were, in place. Raises CheckpointError if damaged or of another shape."""
    text, tensors = read_state(path), load_file(path / "model.safetensors")
    for name, flat in (("input", weights.inputs), ("output", weights.outputs)):
        own = weights.matrix(flat)
        if name not in tensors or tensors[name].shape != own.shape:
            raise CheckpointError(f"{path / 'model.safetensors'} belongs to another model: its names or shapes differ")
        own[:] = tensors[name]
    epochs = [Epoch(**epoch) for epoch in text["state"].pop("epochs")]
    return WordsState(**text["state"], epochs=epochs)
