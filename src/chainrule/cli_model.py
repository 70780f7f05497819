"""The commands `sample` and `export`: a trained language model continues a text, or goes to Hugging Face's format."""

from __future__ import annotations

from pathlib import Path

from chainrule.train.config import SampleConfig
from chainrule.train.config_rules import require


def sample(
    run: Path,
    /,
    *,
    prompt: str = "",
    tokens: int = 100,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
) -> None:
    """Continue a text with the model of a run.

    Parameters
    ----------
    run
        A run folder (its newest checkpoint), or one of its checkpoints.
    prompt
        The text to continue; empty = begin a new one.
    tokens
        How many to write.
    temperature
        Below 1 more probable tokens are preferred; 0 = always the most probable.
    top_k
        Draw from this many most probable tokens; 0 = from all.
    top_p
        Draw from the fewest most probable tokens that have this probability together; 1 = from all.
    seed
        Of the draws: the same seed gives the same text.
    """
    require(tokens >= 1, f"tokens is {tokens}; it must be 1 or more")
    from chainrule.data.tokenizer import encoded, end_of_text
    from chainrule.train.language_model import load_language_model
    from chainrule.train.sample import continued

    settings = SampleConfig(prompt=prompt, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    trained = load_language_model(run)
    start = encoded(trained.tokenizer, prompt) or [end_of_text(trained.tokenizer)]
    before, after = continued(trained.model, trained.tokenizer, start, trained.config.model.context, settings, seed)
    print(f"{before if prompt else ''}{after}")


def export(run: Path, folder: Path, /) -> None:
    """Write the model and the tokenizer of a run as a folder that Hugging Face's transformers loads.

    Parameters
    ----------
    run
        A run folder (its newest checkpoint), or one of its checkpoints.
    folder
        The folder to make.
    """
    from chainrule.train.huggingface import folder as huggingface
    from chainrule.train.language_model import load_language_model

    trained = load_language_model(run)
    huggingface.export(folder, trained.config.model, dict(trained.model.named_parameters()), trained.tokenizer)
    print(
        f"{trained.checkpoint} is now {folder}; load it with\n"
        f"    AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"    AutoTokenizer.from_pretrained({str(folder)!r})"
    )
