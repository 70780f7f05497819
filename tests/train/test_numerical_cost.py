"""Training by finite differences says its price first, and is refused where an update would not end."""

from dataclasses import replace

import pytest

from chainrule.api import plan, train
from chainrule.errors import ConfigError
from chainrule.train.config import DataConfig, ModelConfig
from chainrule.train.numerical_cost import NumericalCost, require_affordable
from chainrule.train.records import Silent
from small_runs import tiny_config


class Heard(Silent):
    def __init__(self):
        self.lines = {}

    def say(self, label, text):
        self.lines[label] = text


def large(folder):
    """A model of 400,000 parameters, whose update would take hours."""
    return tiny_config(
        folder,
        gradient="numerical",
        precision="float64",
        model=ModelConfig(layers=2, heads=2, hidden=128, context=64),
        data=DataConfig(vocabulary=280, batch_size=4, micro_batch_size=4),
    )


def test_the_seconds_are_parameters_times_8_evaluations_of_each_micro_batch():
    assert 1000 * 8 * 2 * 1e-3 == NumericalCost(parameters=1000, parts=2, forward=1e-3).seconds


def test_an_update_of_hours_is_refused_with_its_price_and_a_way_out():
    cost = NumericalCost(parameters=869_000, parts=1, forward=0.02)

    with pytest.raises(ConfigError) as refused:
        require_affordable(cost, "text")
    assert (
        "gradient is 'numerical': 869,000 parameters x 8 evaluations of 20 ms make about 38 h 37 min an update, and at most "
        "5 min 0 s are allowed, for Ctrl-C waits for its end. Make the model tiny (--model.hidden 8 --model.heads 1 "
        "--model.layers 1 --model.context 16 --data.tokenizer bytes), or take --gradient chain_rule"
    ) == str(refused.value)


@pytest.mark.parametrize("verb", [train, plan])
def test_training_and_planning_a_large_model_by_differences_are_refused_at_once(tmp_path, verb):
    with pytest.raises(ConfigError, match=r"gradient is 'numerical': [0-9,]+ parameters x 8 evaluations of "):
        verb(large(tmp_path))


def test_a_tiny_run_says_what_an_update_costs(tmp_path):
    heard = Heard()
    tiny = ModelConfig(layers=1, heads=1, hidden=2, context=2)

    train(
        replace(large(tmp_path), model=tiny, steps=1, data=DataConfig(tokenizer="bytes", batch_size=1)), listener=heard
    )

    assert heard.lines["cost"].endswith(" an update; Ctrl-C takes effect after one")
