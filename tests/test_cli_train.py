"""The command line: its options are frozen, mistakes have words and exit code 2, and `train` works from a shell."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from chainrule import cli
from chainrule.cli_progress import Pace, Plain, clock, printable, where
from chainrule.cli_train import longer
from chainrule.finding import Finding
from chainrule.report import Report
from chainrule.train.checkpoint import checkpoints
from chainrule.train.config import TrainConfig
from chainrule.train.events import read_steps
from chainrule.train.records import StepRecord
from chainrule.train.settings import leaves, to_toml
from past_runs import made_run
from small_runs import tiny_config, write_text

OPTIONS = [
    "--data.batch-size",
    "--data.max-megabytes",
    "--data.micro-batch-size",
    "--data.no-pack",
    "--data.pack",
    "--data.tokenizer",
    "--data.tokens",
    "--data.validation-fraction",
    "--data.vocabulary",
    "--device",
    "--gradient",
    "--loop.checkpoint-every",
    "--loop.compile",
    "--loop.deterministic",
    "--loop.evaluate-every",
    "--loop.evaluate-windows",
    "--loop.no-deterministic",
    "--loop.no-preflight",
    "--loop.no-recompute",
    "--loop.patience",
    "--loop.preflight",
    "--loop.recompute",
    "--loop.tensorboard",
    "--loss",
    "--method",
    "--mlp.activation",
    "--mlp.dropout",
    "--mlp.hidden",
    "--mlp.initialisation",
    "--mlp.norm",
    "--model.activation",
    "--model.bias",
    "--model.context",
    "--model.dropout",
    "--model.epsilon",
    "--model.family",
    "--model.heads",
    "--model.hidden",
    "--model.initialisation",
    "--model.key-value-heads",
    "--model.layers",
    "--model.mlp",
    "--model.mlp-width",
    "--model.no-tied",
    "--model.norm",
    "--model.positions",
    "--model.pretrained",
    "--model.rotary-base",
    "--model.tied",
    "--name",
    "--optimizer.beta1",
    "--optimizer.beta2",
    "--optimizer.clip-norm",
    "--optimizer.clip-value",
    "--optimizer.decay-embeddings",
    "--optimizer.learning-rate",
    "--optimizer.name",
    "--optimizer.no-decay-embeddings",
    "--optimizer.weight-decay",
    "--plan",
    "--precision",
    "--print-config",
    "--regularisation.l1",
    "--regularisation.l2",
    "--resume",
    "--runs-folder",
    "--sample.every",
    "--sample.prompt",
    "--sample.temperature",
    "--sample.tokens",
    "--sample.top-k",
    "--sample.top-p",
    "--schedule.final-fraction",
    "--schedule.name",
    "--schedule.plateau-factor",
    "--schedule.plateau-patience",
    "--schedule.warmup-steps",
    "--seed",
    "--steps",
    "--table.batch-size",
    "--table.categories",
    "--table.class-weights",
    "--table.delimiter",
    "--table.drop",
    "--table.encoding",
    "--table.file",
    "--table.goal",
    "--table.header",
    "--table.keep",
    "--table.max-categories",
    "--table.min-rows",
    "--table.split",
    "--table.target",
    "--table.test-fraction",
    "--table.validation-fraction",
    "--task",
    "--text",
    "--words.batch-size",
    "--words.checkpoint-words",
    "--words.dimensions",
    "--words.dynamic-window",
    "--words.epochs",
    "--words.final-learning-rate",
    "--words.kernel",
    "--words.learning-rate",
    "--words.lowercase",
    "--words.max-words",
    "--words.min-count",
    "--words.model",
    "--words.negatives",
    "--words.neighbours",
    "--words.no-dynamic-window",
    "--words.no-kernel",
    "--words.no-lowercase",
    "--words.objective",
    "--words.sample",
    "--words.sentence",
    "--words.shared-negatives",
    "--words.split",
    "--words.tests",
    "--words.threads",
    "--words.window",
]
TINY = [
    "--data.vocabulary",
    "280",
    "--model.layers",
    "1",
    "--model.heads",
    "2",
    "--model.hidden",
    "8",
    "--model.context",
    "8",
    "--data.batch-size",
    "4",
    "--steps",
    "12",
    "--loop.evaluate-every",
    "5",
    "--loop.no-preflight",
    "--sample.tokens",
    "8",
    "--precision",
    "float32",
]


def shell(*arguments, folder, **environment):
    """`chainrule ARGUMENTS` in a process of its own, without a terminal."""
    command = [sys.executable, "-c", "from chainrule.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=200
    )


def test_a_warning_of_the_preflight_is_shown_though_the_run_goes_on(capsys):
    finding = Finding("loss-not-a-mean", "warning", "my.py:total", "this loss is a sum")
    Plain().reported(Report(findings=(finding,), stages=()))

    assert "warning     loss-not-a-mean, my.py:total: this loss is a sum\n" in capsys.readouterr().out


def test_the_options_of_train_are_frozen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert 0 == cli.run(["train", "--help"])

    assert OPTIONS == sorted(re.findall(r"(?<=[ │])--[a-z0-9.-]+", capsys.readouterr().out))


def test_every_setting_has_an_option():
    settings = {"--" + name.replace("_", "-") for name, _ in leaves(TrainConfig())}

    assert settings <= set(OPTIONS)


def test_every_option_says_what_it_means(capsys):
    assert 0 == cli.run(["train", "--help"])
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())

    for words in ("Transformer blocks, L.", "Peak of the schedule.", "Prove the gradients of this very model", "MB"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--model.layer", "3"], "Unknown option: --model.layer. Did you mean --model.layers?"),
        (["train", "--table.loss", "mse"], "Unknown option: --table.loss. Did you mean --loss?"),
        (["plan", "--learning-rate=3"], "Unknown option: --learning-rate. Did you mean --optimizer.learning-rate?"),
        (["train", "--loop.early-stop", "3"], "Unknown option: --loop.early-stop; chainrule train --help lists all"),
        (["train", "--resum", "x"], "Unknown option: --resum. Did you mean --resume?"),
        (["trian"], 'Unknown command "trian". Did you mean "train"?'),
        (["train", "--steps", "many"], 'unable to convert "many" into int'),
        (["train", "--method", "batch"], 'Choose from: "full-batch", "stochastic", "mini-batch"'),
        (["train", "--model.heads", "5"], "model.hidden is 128 and model.heads is 5"),
        (["train", "no.toml"], "no.toml cannot be read: No such file"),
        (["train", "--text", "no.txt"], "no.txt does not exist: --text takes files and folders"),
        (["train", "--text", "empty.txt"], "empty.txt is empty"),
        (["train", "--text", "binary.txt"], "binary.txt is a binary file"),
        (["train", "--text", "short.txt"], "the training text holds"),
        (["train", "wrong.toml"], "wrong.toml: unknown key 'model.layer'; did you mean 'model.layers'?"),
        (["train", "--resume", "nowhere"], "nowhere is no run folder"),
        (
            ["train", "--resume", "nowhere", "--steps", "9"],
            "--resume takes every setting from nowhere; leave out steps",
        ),
    ],
)
def test_a_mistake_has_words_exit_code_2_and_no_traceback(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2")
    (tmp_path / "short.txt").write_text("too short\nto train on\n")
    (tmp_path / "wrong.toml").write_text("[model]\nlayer = 3")

    assert cli.MISUSE == cli.run(arguments)
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("chainrule: ")
    assert "Traceback" not in captured.err + captured.out
    assert not (tmp_path / "runs").exists()


def test_flags_win_over_the_file_also_with_a_default_value_and_each_origin_is_printed(tmp_path, capsys):
    (tmp_path / "run.toml").write_text('steps = 9\nseed = 4\ntext = ["a", "b"]\n[model]\ntied = false\n')
    default = str(TrainConfig().steps)
    assert 0 == cli.run(["train", str(tmp_path / "run.toml"), "--steps", default, "--text", "c", "d", "--print-config"])
    text = capsys.readouterr().out

    assert f"steps = {default}  # flag" in text
    assert "seed = 4  # file" in text
    assert 'text = ["c", "d"]  # flag' in text
    assert "tied = false  # file" in text
    assert "layers = 4\n" in text


def test_train_on_ones_own_text_prints_plain_lines_and_can_be_resumed(tmp_path):
    write_text(tmp_path / "text")
    done = shell("train", "--text", "text", *TINY, "--name", "one", folder=tmp_path)

    assert 0 == done.returncode, done.stderr
    assert "\x1b" not in done.stdout
    for words in ("text: ", "to beat     bigram model", "5/12        validation", "per byte of text", "runs/one"):
        assert words in done.stdout
    earlier = checkpoints(tmp_path / "runs" / "one")[0]
    again = shell("train", "--resume", f"runs/one/checkpoints/{earlier.name}", folder=tmp_path)
    assert 0 == again.returncode, again.stderr
    step = int(earlier.name.removeprefix("step-"))
    assert f"from step {step}" in again.stdout
    assert re.search(
        rf"s, all sessions together\ntime        \d+ s for this session, from step {step} on\n", again.stdout
    )


def test_resuming_a_finished_run_leaves_it_and_says_how_to_train_longer(tmp_path, capsys):
    folder = made_run(tmp_path, "done", ending="finished", report={})
    before = sorted(path.stat().st_mtime_ns for path in folder.iterdir())

    assert 0 == cli.run(["train", "--resume", str(folder)])
    assert (
        f"{folder} is already finished after 40 steps; its report is {folder}/report.txt. A run keeps the number of steps "
        f"that it began with. To train longer: chainrule train {folder}/config.toml --name NEW --steps MORE; or export it "
        "and train on from its weights, --model.pretrained FOLDER\n"
    ) == capsys.readouterr().out
    assert before == sorted(path.stat().st_mtime_ns for path in folder.iterdir())


def test_more_steps_of_a_resumed_run_are_refused_with_the_way_to_train_longer(tmp_path, capsys):
    folder = made_run(tmp_path, "done")

    assert cli.MISUSE == cli.run(["train", "--resume", str(folder), "--steps", "99"])
    assert (
        f"leave out steps. To train longer: chainrule train {folder}/config.toml --name NEW" in capsys.readouterr().err
    )


def test_a_run_of_words_is_made_longer_by_its_epochs(tmp_path):
    folder = made_run(tmp_path, "done", task="words")

    assert f"To train longer: chainrule train {folder}/config.toml --name NEW --words.epochs MORE" == longer(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are Unix's")
def test_ctrl_c_ends_with_code_130_and_the_command_that_goes_on(tmp_path):
    write_text(tmp_path / "text")
    (tmp_path / "run.toml").write_text(to_toml(tiny_config(tmp_path, name="stopped", steps=100_000)))
    command = [sys.executable, "-c", "from chainrule.cli import main; main()", "train", "run.toml"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "runs" / "stopped"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(checkpoints(folder)) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert (cli.INTERRUPTED, "") == (process.returncode, errors)
    assert f"go on       chainrule train --resume {folder}" in output
    assert f"step-{len(read_steps(folder)):06d}" == checkpoints(folder)[-1].name


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are Unix's")
@pytest.mark.parametrize("moment", ["reading text", "fitting the bigram baseline"])
def test_ctrl_c_before_the_first_step_says_what_is_kept(tmp_path, moment):
    write_text(tmp_path / "text")
    command = [sys.executable, "-c", "from chainrule.cli import main; main()", "train", "--text", "text", *TINY]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        while moment not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert cli.INTERRUPTED == process.returncode
    if (tmp_path / "runs").exists():
        assert "is saved" in errors
        assert "go on with: chainrule train --resume runs/transformer-001" in errors
    else:
        assert "chainrule: interrupted\n" in errors


def in_a_terminal(command, folder, **environment):
    """What a command writes to a terminal of 100 columns, and its exit code."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | size | environment
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
    return written.decode(), process.returncode


def test_a_terminal_shows_a_bar_and_no_color_is_honoured(tmp_path):
    write_text(tmp_path / "text")
    command = [sys.executable, "-c", "from chainrule.cli import main; main()", "train", "--text", "text", *TINY]
    colourful, code = in_a_terminal(command, tmp_path)
    plain, _ = in_a_terminal(command, tmp_path, NO_COLOR="1")
    colour = re.compile(r"\x1b\[(?:[\d;]*;)?3[0-8][\d;]*m")

    assert 0 == code
    assert "12/12" in colourful
    assert "━" in colourful
    assert colour.search(colourful)
    assert not colour.search(plain)
    assert "12/12" in plain


def test_help_loads_no_torch_and_answers_at_once(tmp_path):
    code = "import sys; from chainrule import cli; cli.run(sys.argv[1:]); assert 'torch' not in sys.modules"
    for arguments in (["--help"], ["train", "--help"], ["train", "--steps", "x"], ["train", "--print-config"]):
        subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, check=True, capture_output=True)


def test_without_a_command_the_help_is_shown(capsys):
    assert 0 == cli.run([])
    assert "chainrule COMMAND" in capsys.readouterr().out


def test_times_are_read_at_a_glance():
    assert ["0:00", "1:02", "59:59", "1:00:00"] == [clock(seconds) for seconds in (0.2, 62, 3599.4, 3600)]


def test_a_sample_cannot_command_the_terminal():
    assert "a\ufffd[31m\n\tb" == printable("a\x1b[31m\n\tb")


def test_the_time_left_follows_the_whole_session_so_that_one_pause_does_not_move_it_far():
    moments = iter([0.0, *(0.1 * step for step in range(1, 101)), 30.0])  # 100 quick steps, then one with a measurement
    pace = Pace(steps=1101, term="token", now=lambda: next(moments))
    lines = [pace.step(StepRecord(step, 3.25, 1e-3, 0.5, 2048, 0.1)) for step in range(1, 102)]

    assert lines[99].endswith("1:40 left")
    assert lines[100].endswith("4:57 left"), "20 steps alone would say 18 minutes"


def test_the_last_lines_name_what_the_folder_of_the_run_holds_and_how_its_vectors_are_asked(tmp_path):
    for name in ("config.toml", "report.txt"):
        (tmp_path / name).write_text("")
    assert [("run", f"{tmp_path}: config.toml, report.txt")] == where(tmp_path, "refused by preflight")

    (tmp_path / "vectors.bin").write_text("")
    assert [
        ("run", f"{tmp_path}: config.toml, report.txt, vectors.bin"),
        ("ask", f"chainrule vectors {tmp_path} similar WORD"),
    ] == where(tmp_path, "finished")


def test_the_line_of_a_step_has_its_figures(capsys):
    line = Pace(steps=10, term="token").step(StepRecord(5, 3.25, 1e-3, 0.5, 2048, 0.1))

    assert re.fullmatch(r"loss 3\.2500  \S+ tokens/s  lr 1\.00e-03  \|g\| 0\.5  0:00 left", line)
    plain = Plain()
    plain.begin(0, 1, "token")
    plain.step(StepRecord(1, 3.25, 1e-3, 0.5, 2048, 0.1))
    assert "1/1         loss 3.2500" in capsys.readouterr().out
