"""The command line: exit statuses, errors on stderr, printed output."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import envs
from archer.commands.play import play_demonstrator, play_person
from archer.commands.terminal import plain_text


def archer(*arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the console command in a new process."""
    script = "import sys; sys.path[:] = [p for p in sys.path if p]; from archer.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd, input=stdin
    )


def assert_refused(answer: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert answer.returncode == status, answer.stderr
    assert "Traceback" not in answer.stderr
    for word in words:
        assert word in answer.stderr


def test_help_lists_every_command() -> None:
    answer = archer("--help")
    assert answer.returncode == 0
    for command in ("demo", "train", "eval", "record", "import", "export", "play", "config", "envs", "replay"):
        assert f" {command} " in answer.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import archer, archer.cli; "
        "print(sorted({'torch', 'ray', 'vllm', 'transformers', 'pyarrow', 'numpy', 'envs'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"


def test_config_prints_the_resolved_form() -> None:
    answer = archer("config", "demo", "learner.critic.lr=1e-3", "seed=5")
    assert answer.returncode == 0, answer.stderr
    tree = yaml.safe_load(answer.stdout)
    assert (tree["learner"]["critic"]["lr"], tree["seed"], tree["name"]) == (1e-3, 5, "demo")
    assert tree["cluster"]["address"] is None


def test_config_lists_every_field() -> None:
    answer = archer("config", "--fields")
    assert answer.returncode == 0
    assert "learner.critic.gamma  0.95  (a number > 0 and <= 1)" in answer.stdout
    assert "    Discount per turn." in answer.stdout


def test_mistyped_key_names_the_nearest() -> None:
    answer = archer("config", "configs/paper/twenty_questions.yaml", "learner.critic.lrate=1")
    assert_refused(answer, 2, "`learner.critic.lrate`", "did you mean `learner.critic.lr`?")
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["config"], ["needs a file or a preset", "demo"]),
        (["config", "nothing.yaml"], ["'nothing.yaml' does not exist", "demo"]),
        (["train"], ["--resume"]),
        (["train", "demo", "env.id=twenty_question"], ["twenty_questions"]),
        (["train", "--resume", "no_such_run"], ["no_such_run", "no run folder"]),
        (["train", "--resume", "x", "--overwrite"], ["exclude each other"]),
        (["train", "demo", "--bogus"], ["No such option"]),
        (["demo", "cycles=-1"], ["`cycles` is -1"]),
        (["bogus"], ["No such command"]),
        (["demos"], ["No such command", "Did you mean 'demo'"]),
        (["play", "twenty_questions", "--skill", "3"], ["skill"]),
        (["eval", "./no_such_model", "--env", "twenty_questions"], ["no_such_model"]),
        (["eval", "./no_such_model", "--episodes", "0"], ["episodes"]),
        (["eval", ".", "./no_such_model", "--env", "twenty_questions"], ["neither a run", "nor a Hugging Face model"]),
        (["eval"], ["Missing argument"]),
    ],
)
def test_bad_argument_is_refused_with_status_2(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    assert_refused(archer(*arguments, cwd=tmp_path), 2, *words)
    assert list(tmp_path.iterdir()) == []


def test_unknown_environment_is_refused_with_the_nearest() -> None:
    assert_refused(archer("play", "twenty_question"), 2, "unknown environment", "twenty_questions")


def test_envs_lists_every_task_with_turns_return_and_what_it_needs() -> None:
    answer = archer("envs")
    assert answer.returncode == 0
    lines = answer.stdout.splitlines()
    for spec in envs.specs():
        low, high = spec.reward_range
        (line,) = [line for line in lines if line.split()[:1] == [spec.id]]
        assert line.split()[1:5] == [str(spec.max_turns), f"{low:g}", "to", f"{high:g}"]
        assert f"    {spec.description}" in lines
        if spec.extra is not None:
            missing = envs.missing_modules(spec.extra)
            assert line.endswith(f"{spec.extra} ({'not installed' if missing else 'installed'})")


def test_interrupt_ends_with_130() -> None:
    script = (
        "import archer.commands.play; from archer.cli import main\n"
        "def interrupt(*args, **kwargs): raise KeyboardInterrupt\n"
        "archer.commands.play.play_person = interrupt\n"
        "import sys; sys.argv = ['archer', 'play', 'twenty_questions']; main()"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert_refused(answer, 130, "interrupted")


def test_person_leaves_by_end_of_input() -> None:
    answer = archer("play", "twenty_questions_subset", "--seed", "3", stdin="Is it an animal?\n")
    assert answer.returncode == 0, answer.stderr
    assert "1/20 > Is it an animal?\nNo." in answer.stdout
    assert "left after 1 turn; return -1" in answer.stdout


def test_bytes_that_are_not_utf8_are_an_ordinary_action() -> None:
    script = "import sys; sys.path[:] = [p for p in sys.path if p]; from archer.cli import main; main()"
    command = [sys.executable, "-c", script, "play", "wordle", "--set", "env.kwargs.words=[crane, apple]"]
    answer = subprocess.run(command, capture_output=True, timeout=120, input=b"\xff\xfe\n\x1b[2J\ncrane\napple\n")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count(b"Invalid word.") == 2
    assert b"solved in" in answer.stdout
    assert b"\x1b" not in answer.stdout
    assert answer.stderr == b""


def test_a_person_sees_some_of_many_valid_actions() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100)
    play_person("wordle", seed=0, ask=lambda _: "crane", console=console)
    assert " and 683 more" in " ".join(output.getvalue().split())


def test_person_plays_to_the_end() -> None:
    words = ["football", "dog", "banana", "truck", "pants", "computer", "piano", "chair", "pen", "scissors"]
    questions: Iterator[str] = iter([f"Is it a {word}?" for word in words] * 2)
    output = io.StringIO()
    total = play_person(
        "twenty_questions_subset", seed=3, ask=lambda _: next(questions), console=Console(file=output, width=100)
    )
    assert total is not None
    assert -10 < total <= 0  # one of the ten guesses is right
    assert "solved in" in output.getvalue()


def test_demonstrator_is_shown_turn_by_turn() -> None:
    output = io.StringIO()
    total = play_demonstrator("twenty_questions_subset", seed=3, skill=1.0, console=Console(file=output, width=100))
    turns = [line for line in output.getvalue().splitlines() if line.split(" > ")[0].isdigit()]
    assert len(turns) == 1 - total
    assert "solved in" in output.getvalue()


def test_text_from_a_game_cannot_steer_the_terminal() -> None:
    assert plain_text("a\x1b[2Jb\n") == "a�[2Jb"
    assert plain_text([{"role": "user", "content": "hi"}, {"role": "tool", "content": "x"}]) == "user: hi\ntool: x"


def test_a_terminal_that_is_ascii_shows_other_text_with_marks(tmp_path: Path) -> None:
    (tmp_path / "stadt.py").write_text(
        "from envs.twenty_questions import TwentyQuestions\n\n\n"
        "class Gruss(TwentyQuestions):\n"
        "    def reset(self, *, seed, options=None):\n"
        "        observation, info = super().reset(seed=seed, options=options)\n"
        "        return 'Gr\u00fc\u00dfe \u2192 \U0001f600', info\n"
    )
    script = "from archer.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", script, "play", "stadt:Gruss"],
        capture_output=True,
        timeout=120,
        cwd=tmp_path,
        input=b"",
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONPATH": str(tmp_path)},
    )
    assert b"Traceback" not in answer.stderr, answer.stderr
    assert b"Gr??e ? ?" in answer.stdout
    refused = subprocess.run(
        [sys.executable, "-c", script, "config", "sch\u00f6n"],
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert refused.returncode == 2
    assert b"Traceback" not in refused.stderr


def test_a_full_disk_under_the_output_is_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [sys.executable, "-c", "from archer.cli import main; main()", "config", "demo"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert answer.returncode == 1
    assert answer.stderr.startswith("archer: no space left on the disk")
    assert "Traceback" not in answer.stderr


def test_interrupted_run_says_how_to_resume(tmp_path: Path) -> None:
    script = (
        "import sys, types\n"
        "def run(config, folder, *, resume):\n"
        "    (folder.checkpoints / 'cycle-00003').mkdir(exist_ok=True)\n"
        "    raise KeyboardInterrupt\n"
        "module = types.ModuleType('archer.run'); module.run = run; sys.modules['archer.run'] = module\n"
        "from archer.cli import main; main()"
    )
    train = [sys.executable, "-c", script, "train"]
    first = subprocess.run([*train, "demo"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    run = tmp_path / "runs" / "demo"
    assert_refused(first, 130, f"archer train --resume {run}` resumes from cycle-00003")
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == "demo"
    again = subprocess.run([*train, "demo"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert_refused(again, 2, "already holds a run", "--resume", "--overwrite")
    resumed = [*train, "--resume", str(run), "cycles=77"]
    assert_refused(subprocess.run(resumed, capture_output=True, text=True, timeout=60, cwd=tmp_path), 130)
    # The settings of a resumed run replace the earlier ones when the learner is up, and not before.
    assert yaml.safe_load((run / "config.yaml").read_text())["cycles"] != 77
