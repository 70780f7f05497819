"""Runs in processes of their own, to be killed and resumed."""

import signal
import subprocess
import sys
import time

from chainrule.train.events import read_steps

CHILD = """
import sys
from pathlib import Path
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from chainrule.train.settings import load_config
path = Path(sys.argv[1])
run_training(open_run(path) if path.is_dir() else new_run(load_config(path)))
"""


def start_child(path):
    """A new run of a TOML file, or a run folder resumed, in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_written(folder):
    try:
        return len(read_steps(folder))
    except Exception:  # the file, or its tables, are not there yet
        return 0


def kill_child_after(process, folder, more, pause):
    """SIGKILL a while after `more` further steps are in the metrics."""
    wanted, deadline = steps_written(folder) + more, time.monotonic() + 120
    while process.poll() is None and steps_written(folder) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(pause)
    assert process.poll() is None, f"ended before it was killed: {process.communicate()[0]}"
    process.kill()
    assert -signal.SIGKILL == process.wait()
    process.stdout.close()


def finish_child(process):
    output, _ = process.communicate(timeout=240)
    assert 0 == process.returncode, output
