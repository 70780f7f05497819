"""Word vectors from a part of Python's own sources: the kernel is proved, trains, and its vectors are asked.

    python examples/word2vec.py

The nearest words depend on the version of Python, whose sources are the text.

Expected output:
pass  kernel = autograd: change of the input vectors differs by ..., of the output vectors by ..., loss by ...
pass  kernel = chain_rule: change of the input vectors differs by ..., of the output vectors by ..., loss by ...
loss 1..., of word frequencies alone 2...; ... words/s on one thread
read        ...
none        ...
event       ...
int         ...
"""

import sysconfig
import tempfile
from pathlib import Path

import chainrule as cr
from chainrule.data.word_vectors import load_vectors
from chainrule.train.config import TrainConfig
from chainrule.train.config_words import WordsConfig

ROOMS = ("asyncio", "email", "http", "importlib", "json", "logging", "multiprocessing", "unittest", "urllib", "xml")


def main():
    library = Path(sysconfig.get_paths()["stdlib"])
    with tempfile.TemporaryDirectory() as folder:
        results = cr.train(
            TrainConfig(
                task="words",
                text=tuple(str(library / room) for room in ROOMS),
                runs_folder=folder,
                words=WordsConfig(dimensions=64, epochs=10, threads=1),
            )
        )
        vectors = load_vectors(Path(results.folder) / "vectors.bin")

    for stage in results.preflight["stages"]:
        print(f"{stage['verdict']}  {stage['name']}: {stage['summary']}")
    print(
        f"loss {results.training_loss:.4f}, of word frequencies alone {results.baseline_loss:.4f}; "
        f"{results.terms_per_second:,.0f} words/s on one thread"
    )
    for word in ("read", "none", "event", "int"):
        print(f"{word:<12}{', '.join(near for near, _ in vectors.similar(word, 5))}")


if __name__ == "__main__":
    main()
