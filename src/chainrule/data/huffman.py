"""Huffman's tree over the vocabulary, for hierarchical softmax: frequent words have short codes.

Word w is reached from the root by the inner nodes path(w)_0 ... path(w)_(L-1) and the turns code(w)_j, 0 or 1; it costs
L logistic decisions instead of a softmax over V words. Morin and Bengio 2005; Mikolov et al. 2013, section 2.1.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tree:
    """V words, V - 1 inner nodes, the root first.

    path_VL    inner nodes from the root to each word; rows are filled up with 0
    code_VL    the turn at each of them
    length_V   how many there are
    """

    path: NDArray[np.int32]
    code: NDArray[np.int8]
    length: NDArray[np.int32]


def huffman(counts: NDArray[np.int64]) -> Tree:
    """The tree of least mean code length; equal counts are taken in the order of their numbers."""
    total = len(counts)
    heap = [(int(count), word) for word, count in enumerate(counts)]
    heapq.heapify(heap)
    children: list[tuple[int, int]] = []
    while len(heap) > 1:
        (low, left), (high, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (low + high, total + len(children)))
        children.append((left, right))
    paths: list[list[tuple[int, int]]] = [[] for _ in range(total)]
    above: dict[int, list[tuple[int, int]]] = {total + len(children) - 1: []}
    for number in range(len(children) - 1, -1, -1):  # from the root down: a node is made after its children
        before = above.pop(total + number)
        for turn, child in enumerate(children[number]):
            way = [*before, (len(children) - 1 - number, turn)]
            if child < total:
                paths[child] = way
            else:
                above[child] = way
    return _as_arrays(paths)


def _as_arrays(paths: list[list[tuple[int, int]]]) -> Tree:
    length = np.array([len(way) for way in paths], np.int32)
    path = np.zeros((len(paths), int(length.max())), np.int32)
    code = np.zeros(path.shape, np.int8)
    for word, way in enumerate(paths):
        path[word, : len(way)] = [node for node, _ in way]
        code[word, : len(way)] = [turn for _, turn in way]
    return Tree(path, code, length)
