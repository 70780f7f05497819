"""The kernel proved: its change of the weights is -rate times the gradient of the plain formula, by any gradient engine.

The same job is run twice from the same random weights: by the kernel in float32, and block by block by the engine in
float64, W ← W - rate dL/dW. A block reads before it writes, so that for one block, change / rate *is* the gradient.

    error = ‖ΔW_kernel - ΔW_engine‖ / ‖ΔW_engine‖        for each matrix, over all of its rows
    bound = 4 ε (√D + ‖W‖ / ‖ΔW‖)                        ε = 2^-23: a sum of D products; W of the rows that change

A factor of 1.001 anywhere is a hundred times the bound (a test plants one).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from chainrule.models.word2vec import Word2Vec
from chainrule.train.engine import Batch, Engine
from chainrule.train.words.kernel import Kernel
from chainrule.train.words.shape import Scratch, Shape, Tables
from chainrule.train.words.textbook import LOSSES, batch_of, examples

SCALE = 0.3  # of the random weights: scores of about 1, where the logistic function is bent
RATE = 0.1
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Proof:
    """Relative errors of the change of both matrices and of the loss, and how large rounding may make them.

    elements  weights that were compared; those that must not change are among them
    """

    engine: str
    pairs: int
    blocks: int
    elements: int
    input_error: float
    input_bound: float
    output_error: float
    output_bound: float
    loss_error: float
    loss_bound: float

    @property
    def ok(self) -> bool:
        """Every error is within its bound; nan is not."""
        return (
            self.input_error <= self.input_bound
            and self.output_error <= self.output_bound
            and self.loss_error <= self.loss_bound
        )

    def __str__(self) -> str:
        return f"kernel {'=' if self.ok else 'is not'} {self.engine}: {self.summary}"

    @property
    def summary(self) -> str:
        """The errors and what is allowed."""
        return (
            f"change of the input vectors differs by "
            f"{self.input_error:.1e} (allowed {self.input_bound:.1e}), of the output vectors by {self.output_error:.1e} "
            f"({self.output_bound:.1e}), loss by {self.loss_error:.1e} ({self.loss_bound:.1e}); {self.pairs:,} pairs in "
            f"{self.blocks} blocks"
        )


def prove(
    kernel: Kernel,
    shape: Shape,
    tables: Tables,
    scratch: Scratch,
    words: int,
    tokens: NDArray[np.int32],
    engine: Engine,
    *,
    name: str,
    seed: int = 0,
) -> Proof:
    """Run the tokens as one job by kernel and engine, and compare."""
    generator = np.random.default_rng(seed)
    start = [_random(generator, count, shape) for count in (words, rows_of_output(shape, words))]
    inputs, outputs = (matrix.copy().ravel() for matrix in start)
    loss, pairs, _ = kernel(inputs, outputs, tokens, tables, seed, 0, 0, np.float32(RATE), scratch)

    model = _model(start, shape)
    exact_loss, blocks = 0.0, 0
    for terms in examples(shape, tables, tokens, seed, 0, 0, scratch):
        if terms:
            exact_loss += _step(model, batch_of(shape, tables, terms), shape, engine)
        blocks += 1
    exact = [embedding.weight.detach().numpy() for embedding in (model.input, model.output)]
    errors = [
        _compare(before, after.reshape(before.shape), wanted)
        for before, after, wanted in zip(start, (inputs, outputs), exact, strict=True)
    ]
    return Proof(
        engine=name,
        pairs=pairs,
        blocks=blocks,
        elements=sum(matrix.size for matrix in start),
        input_error=errors[0][0],
        input_bound=errors[0][1],
        output_error=errors[1][0],
        output_bound=errors[1][1],
        loss_error=abs(loss - exact_loss) / abs(exact_loss),
        loss_bound=4 * float(np.finfo(np.float32).eps) * math.sqrt(shape.dimensions),
    )


def rows_of_output(shape: Shape, words: int) -> int:
    """Output vectors: one a word, or one an inner node of the tree."""
    return words - 1 if shape.objective == "hierarchical" else words


def _random(generator: np.random.Generator, rows: int, shape: Shape) -> NDArray[np.float32]:
    matrix = np.zeros((rows, shape.width), np.float32)
    matrix[:, : shape.dimensions] = SCALE * generator.standard_normal((rows, shape.dimensions), np.float32)
    return matrix


def _model(start: list[NDArray[np.float32]], shape: Shape) -> Word2Vec:
    """The plain module with these weights, in float64."""
    model = Word2Vec(len(start[0]), len(start[1]), shape.dimensions).double()
    with torch.no_grad():
        for embedding, matrix in zip((model.input, model.output), start, strict=True):
            embedding.weight.copy_(torch.from_numpy(matrix[:, : shape.dimensions]))
    return model


def _step(model: Word2Vec, batch: Batch, shape: Shape, engine: Engine) -> float:
    """One block by the engine: update the float64 weights, return the loss before."""
    model.zero_grad(set_to_none=True)
    loss = float(engine(model, LOSSES[shape.objective], batch))
    with torch.no_grad():
        for weight in model.parameters():
            assert weight.grad is not None
            weight.sub_(RATE * weight.grad)
    return loss


def _compare(before: NDArray[np.float32], after: NDArray[np.float32], wanted: _Matrix) -> tuple[float, float]:
    """(relative error of the change, bound); a padding that is not zero counts as an error."""
    dimensions = wanted.shape[1]
    padding = float(np.linalg.norm(after[:, dimensions:]))
    before, after = before[:, :dimensions], after[:, :dimensions]
    change = float(np.linalg.norm(wanted - before))
    error = (float(np.linalg.norm(after.astype(np.float64) - wanted)) + padding) / change
    moved = float(np.linalg.norm(before[(wanted != before).any(axis=1)]))
    epsilon = float(np.finfo(np.float32).eps)
    return error, 4 * epsilon * (math.sqrt(dimensions) + moved / change)
