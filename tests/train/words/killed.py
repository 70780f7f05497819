"""Train a run of task words in child processes that are killed with SIGKILL at random moments: killed.py RUN.toml KILLS.

A child is forked, so that torch is imported once. Prints how many children were killed before the run ended.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from chainrule.api import train
from chainrule.train.run_folder import new_run, open_run
from chainrule.train.settings import load_config


def main(settings, kills):
    config = load_config(Path(settings))
    folder = Path(config.runs_folder, config.name)
    generator, killed = random.Random(7), 0
    while not (folder / "report.json").exists():
        child = os.fork()
        if not child:
            train(open_run(folder) if folder.exists() else new_run(config))
            os._exit(0)
        if killed < kills and runs_on_after_a_new_checkpoint(child, folder):
            time.sleep(generator.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            killed += 1
            os.waitpid(child, 0)
        elif killed == kills:
            os.waitpid(child, 0)
    print(killed)


def runs_on_after_a_new_checkpoint(child, folder):
    """Wait for a checkpoint that was not there; False if the child has ended."""
    before = checkpoints(folder)
    while checkpoints(folder) == before:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    return True


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
