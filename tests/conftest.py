"""What holds for every test: one thread, no network, fixed seeds, the smoke test first."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two workers share two cores
os.environ["HF_HUB_OFFLINE"] = "1"

import random

import hypothesis
import numpy as np
import pytest
import torch

pytest_plugins = ["skip_policy"]

torch.set_num_threads(1)
hypothesis.settings.register_profile("chainrule", derandomize=True, deadline=None)
hypothesis.settings.load_profile("chainrule")


def pytest_collection_modifyitems(items):
    """The smoke test runs first: if the house does not stand, say so within ten seconds."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test draws the same numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
