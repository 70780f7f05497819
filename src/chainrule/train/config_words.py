"""The settings of Word2Vec: section [words] of a run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chainrule.train.config_rules import require, require_least


@dataclass(frozen=True)
class WordsConfig:
    """Word2Vec: vectors of words from the words around them."""

    model: Literal["skip-gram", "cbow"] = "skip-gram"
    """Each context word predicts the centre; or the mean of the window does (CBOW)."""
    objective: Literal["negative", "hierarchical", "softmax"] = "negative"
    """Negative sampling, Huffman-coded hierarchical softmax, or the full softmax (small vocabularies)."""
    dimensions: int = 100
    """Numbers in a vector, D."""
    window: int = 5
    """Words to each side of the centre, at most."""
    dynamic_window: bool = True
    """Each centre's window reaches 1 to `window` words, at random; off = always `window`."""
    negatives: int = 5
    """Negatives for each pair, K."""
    shared_negatives: int = 0
    """Negatives that are drawn for a group of rows, each weighing K/shared; 0 = 40 (skip-gram) or 8 (CBOW)."""
    sample: float = 1e-3
    """Words more frequent than about this share are dropped at random; 0 = none."""
    min_count: int = 5
    """Rarer words are left out."""
    max_words: int = 0
    """Only so many most frequent words; 0 = all."""
    epochs: int = 5
    """Passes over the text."""
    learning_rate: float = 0.0
    """Of the first word; falls linearly with the words read; 0 = 0.025 (skip-gram) or 0.075 (CBOW)."""
    final_learning_rate: float = 1e-4
    """Of the last word."""
    threads: int = 0
    """Threads that write the vectors without locks; 1 = bitwise reproducible; 0 = one a core."""
    split: Literal["letters", "spaces"] = "letters"
    """A word is letters and digits; or whatever stands between spaces."""
    sentence: Literal["auto", "line", "paragraph"] = "auto"
    """What no window crosses: a line, or a paragraph (blank lines between); auto = paragraphs if the text has blank lines."""
    lowercase: bool = True
    """All letters small."""
    checkpoint_words: int = 20_000_000
    """Words between two checkpoints; 0 = only at the end and when interrupted."""
    neighbours: tuple[str, ...] = ()
    """Words whose nearest words the report shows; none = some frequent ones."""
    tests: tuple[str, ...] = ()
    """Files to measure the vectors on: judged pairs (WordSim-353, SimLex-999) or analogies."""
    kernel: bool = True
    """The fast kernel, proved against the chain rule; off = the plain torch module in the common loop, any engine."""
    batch_size: int = 512
    """Predictions in one update (only without the kernel)."""

    def __post_init__(self) -> None:
        require_least(self, "words", 1, "dimensions", "window", "negatives", "min_count", "epochs", "batch_size")
        require_least(self, "words", 0, "shared_negatives", "max_words", "learning_rate", "final_learning_rate")
        require_least(self, "words", 0, "threads", "checkpoint_words")
        require(0 <= self.sample < 1, f"words.sample is {self.sample}; a share from 0 up to below 1 is needed")
        require(self.dimensions <= 4096, f"words.dimensions is {self.dimensions}; at most 4096 are possible")
        require(self.window <= 100, f"words.window is {self.window} words; at most 100 are possible")
