"""What a training run is, as frozen data: one dataclass a component; the CLI, the TOML file and the API share it.

Imports no torch: `chainrule train --help` reads this file. Every field's docstring says its meaning and unit; it is
the text that `--help` prints. A wrong value raises ConfigError where the dataclass is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chainrule.train.config_model import ModelConfig as ModelConfig
from chainrule.train.config_rules import require, require_least
from chainrule.train.config_table import MLPConfig as MLPConfig
from chainrule.train.config_table import TableConfig as TableConfig
from chainrule.train.config_update import OptimizerConfig as OptimizerConfig
from chainrule.train.config_update import RegularisationConfig as RegularisationConfig
from chainrule.train.config_update import ScheduleConfig as ScheduleConfig
from chainrule.train.config_words import WordsConfig as WordsConfig

Gradient = Literal["autograd", "chain_rule", "numerical"]
Method = Literal["full-batch", "stochastic", "mini-batch"]
Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]
Compile = Literal["auto", "on", "off"]
Tensorboard = Literal["auto", "on", "off"]
Device = Literal["auto", "cpu", "cuda", "mps"]
TaskName = Literal["text", "table", "words"]


@dataclass(frozen=True)
class DataConfig:
    """Text, tokens and batches."""

    tokenizer: str = "auto"
    """bpe (learned from the text), bytes (nothing to learn) or a tokenizer.json; auto = bpe, or `model.pretrained`'s."""
    tokens: str = ""
    """Token ids instead of text: a folder with train.bin and val.bin, or one .npy or .bin; needs `data.tokenizer`."""
    pack: bool = False
    """Hide the documents in one window from each other, and count positions from each one's beginning."""
    vocabulary: int = 2048
    """Tokens that the byte-pair tokenizer may learn, at least 257 (the bytes and the end-of-text mark)."""
    validation_fraction: float = 0.1
    """Share of the files that is kept for validation, chosen by a hash of the file's path."""
    max_megabytes: float = 0.0
    """Text used at most, in MB; 0 = all of your files, or 6 MB of the standard library."""
    batch_size: int = 8
    """Windows of `model.context` tokens in one update (mini-batch only)."""
    micro_batch_size: int = 0
    """Windows in one forward pass, of which larger batches are accumulated; 0 = as many as the free memory holds."""

    def __post_init__(self) -> None:
        require(self.vocabulary >= 257, f"data.vocabulary is {self.vocabulary}; 256 bytes and 1 mark need 257")
        require(
            0 < self.validation_fraction < 1,
            f"data.validation_fraction is {self.validation_fraction}; a share between 0 and 1 is needed",
        )
        require(self.max_megabytes >= 0, f"data.max_megabytes is {self.max_megabytes}; 0 means no limit")
        require(self.batch_size >= 1, f"data.batch_size is {self.batch_size} windows; it must be 1 or more")
        require_least(self, "data", 0, "micro_batch_size")


@dataclass(frozen=True)
class LoopConfig:
    """What happens between updates."""

    evaluate_every: int = 250
    """Updates between two measurements of the validation loss; 0 = only at the end."""
    evaluate_windows: int = 64
    """Validation windows of these measurements, evenly spread; the last measurement uses all."""
    checkpoint_every: int = 250
    """Updates between two checkpoints; 0 = only at the end, when interrupted, and at the best validation loss."""
    patience: int = 0
    """Stop when so many measurements in a row were no better than the best, and keep the best; 0 = never."""
    preflight: bool = True
    """Prove the gradients of this very model before the first update."""
    compile: Compile = "auto"
    """torch.compile the forward and backward pass; auto = on a GPU only, where the half minute pays."""
    recompute: bool = False
    """Keep only the inputs of a Transformer's blocks and compute their activations again in the backward pass."""
    deterministic: bool = False
    """Refuse operations whose result depends on the order in which a GPU's threads come."""
    tensorboard: Tensorboard = "auto"
    """Write TensorBoard's event files, too; auto = if the extra [tensorboard] is installed."""

    def __post_init__(self) -> None:
        require_least(self, "loop", 0, "evaluate_every", "checkpoint_every", "patience")
        require_least(self, "loop", 1, "evaluate_windows")
        require(
            self.patience == 0 or self.evaluate_every > 0,
            f"loop.patience is {self.patience} measurements and loop.evaluate_every is 0: nothing is measured on the way",
        )


@dataclass(frozen=True)
class SampleConfig:
    """The continuation that is written when training ends."""

    prompt: str = ""
    """Text to continue; empty = the first line or so of the validation text."""
    every: int = 0
    """Updates between two samples on the way; 0 = only at the end."""
    tokens: int = 100
    """Length, in tokens; 0 = no sample."""
    temperature: float = 0.8
    """Below 1 more probable tokens are preferred; 0 = always the most probable."""
    top_k: int = 50
    """Draw from this many most probable tokens; 0 = from all."""
    top_p: float = 1.0
    """Draw from the fewest most probable tokens that have this probability together; 1 = from all."""

    def __post_init__(self) -> None:
        require_least(self, "sample", 0, "every", "tokens", "temperature", "top_k")
        require(0 < self.top_p <= 1, f"sample.top_p is {self.top_p}; a probability above 0, up to 1, is needed")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    task: TaskName = "text"
    """What to train: a language model on text, an MLP on a table, or vectors of words."""
    text: tuple[str, ...] = ()
    """Your text files or folders (utf-8); none = the sources of Python's standard library."""
    name: str = ""
    """Folder of the run below `runs_folder`; empty = the next free number."""
    runs_folder: str = "runs"
    """Where run folders are made."""
    gradient: Gradient = "autograd"
    """Who computes the gradient: torch.autograd, our own chain rule, or finite differences (tiny models only)."""
    loss: str = "auto"
    """What is made small (tasks text and table): a name of `chainrule losses`, with settings if you like, huber(delta=0.7); or
    FILE.py:function of yours, called as function(prediction, target); auto = cross-entropy, log-loss or mse, by the target."""
    method: Method = "mini-batch"
    """Windows in one update: all of the training text, one, or `data.batch_size`."""
    steps: int = 1500
    """Updates."""
    seed: int = 0
    """Of the initial weights, the order of the data, dropout and the sample."""
    precision: Precision = "auto"
    """Arithmetic of forward and backward; auto = bfloat16 if measured faster here, else float32."""
    device: Device = "auto"
    """Where to compute; auto = cuda if there is one, else cpu."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The Transformer."""
    data: DataConfig = field(default_factory=DataConfig)
    """Text, tokens and batches."""
    table: TableConfig = field(default_factory=TableConfig)
    """A table (task table)."""
    mlp: MLPConfig = field(default_factory=MLPConfig)
    """The network that a table is learned by (task table)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The update rule."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate's course."""
    regularisation: RegularisationConfig = field(default_factory=RegularisationConfig)
    """Penalties on the weights."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Between updates."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    """The continuation at the end."""
    words: WordsConfig = field(default_factory=WordsConfig)
    """Vectors of words (task words)."""

    def __post_init__(self) -> None:
        require_table(self)
        require(self.steps >= 1, f"steps is {self.steps}; it must be 1 or more")
        require(0 <= self.seed < 2**63, f"seed is {self.seed}; it must be 0 or more, below 2^63")
        require(
            "/" not in self.name and "\\" not in self.name and self.name not in (".", ".."),
            f"name is {self.name!r}; it is one folder's name, set --runs-folder for its place",
        )
        exact = self.gradient == "autograd"
        require(
            exact or self.precision not in ("bfloat16", "float16"),
            f"gradient is {self.gradient!r} and precision is {self.precision!r}: the engine {self.gradient} computes in "
            "float32 or float64; set --precision to one of them",
        )
        require(
            self.task != "words" or self.loss == "auto",
            f"loss is {self.loss!r} and task is 'words', whose loss is words.objective ({self.words.objective}); leave loss out",
        )
        require(
            self.task == "text" or not self.loop.recompute,
            f"task is {self.task!r} and loop.recompute is set: only a Transformer has blocks to compute again",
        )
        require(
            exact or not (self.loop.compile == "on" or self.loop.recompute),
            f"gradient is {self.gradient!r}: loop.compile and loop.recompute change how autograd works; leave them out",
        )
        require(
            self.schedule.name != "plateau" or self.loop.evaluate_every > 0,
            "schedule.name is 'plateau' and loop.evaluate_every is 0: there is no measurement to fall by",
        )


def require_table(config: TrainConfig) -> None:
    """Raise ConfigError if a run on a table lacks one or cannot have its norm, and if another run is given a table."""
    given = config.table.file or config.table.target
    require(
        config.task == "table" or not given,
        f"a table is given ({given!r}) and task is {config.task!r}, which does not read it; set --task table",
    )
    if config.task != "table":
        return
    require(
        not config.text,
        f"text is {', '.join(map(repr, config.text))} and task is 'table', which reads table.file; leave text out",
    )
    require(
        bool(config.table.file and config.table.target),
        "task is 'table': a file and the column that is to be predicted are needed, for instance "
        "--table.file FILE.csv --table.target COLUMN",
    )
    rows = {"full-batch": 2, "stochastic": 1, "mini-batch": config.table.batch_size}[config.method]
    require(
        config.mlp.norm != "batch" or rows > 1,
        "mlp.norm is 'batch' and an update has one row: a batch norm needs two or more; take another norm",
    )
