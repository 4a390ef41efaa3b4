"""Completion in the shell: the scripts come out, and words are completed without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unfooled.cli.completion import NAMES

PROGRAM = Path(sys.executable).parent / "unfooled"


def asked(more, *arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("_UNFOOLED", "_TYPER", "COMP_"))} | more
    return subprocess.run([PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=60)


def bash(words):
    """What bash would offer at the end of a line."""
    parts = words.split(" ")
    done = asked(
        {"_UNFOOLED_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(parts), "COMP_CWORD": str(len(parts) - 1)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell):
    done = asked({"_UNFOOLED_COMPLETE": f"source_{shell}"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_UNFOOLED_COMPLETE=complete_{shell}" in done.stdout


@pytest.mark.parametrize(("shell", "file"), [("zsh", ".zfunc/_unfooled"), ("fish", ".config/fish/completions/unfooled.fish"),
                                             ("bash", ".bash_completions/unfooled.sh")])  # fmt: skip
def test_the_shell_that_asks_gets_its_script_installed(tmp_path, shell, file):
    called = tmp_path / shell  # a shell by its name, which is what counts
    called.symlink_to("/bin/bash")
    env = os.environ | {"HOME": str(tmp_path), "SHELL": str(called)}
    shown, installed = (
        subprocess.run([called, "-c", f"'{PROGRAM}' {option}; exit $?"], env=env, capture_output=True, text=True, timeout=60)
        for option in ("--show-completion", "--install-completion")
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert (installed.returncode, installed.stderr) == (0, "")
    assert (tmp_path / file).read_text().strip() == shown.stdout.strip()


def test_zsh_and_fish_complete_commands():
    line = {"_TYPER_COMPLETE_ARGS": "unfooled ev"}
    assert '"evaluate":' in asked(line | {"_UNFOOLED_COMPLETE": "complete_zsh"}).stdout
    fish = asked(line | {"_UNFOOLED_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"})
    assert fish.stdout.startswith("evaluate\t")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("unfooled ev", {"evaluate"}),
        ("unfooled evaluate fashion-mnist/p", {"fashion-mnist/plain", "fashion-mnist/pgd-small"}),
        ("unfooled evaluate fashion-mnist/plain fash", {"fashion-mnist", "fashion-mnist-sample"}),
        ("unfooled evaluate m d --protocol st", {"standard"}),
        ("unfooled attack m d --attack deep", {"deepfool"}),
        ("unfooled evaluate m d --threat l", set(NAMES["threats"])),
        ("unfooled list pro", {"protocols"}),
        ("unfooled evaluate some-file-of-", set()),  # the shell goes on to files
    ],
)
def test_words_are_completed(line, offered):
    assert set(bash(line)) == offered


def test_bash_itself_completes(tmp_path):
    script = asked({"_UNFOOLED_COMPLETE": "source_bash"}).stdout
    done = subprocess.run(
        ["bash", "--norc", "-c", f'PATH="{PROGRAM.parent}:$PATH"; {script}\nCOMP_WORDS=(unfooled eval); COMP_CWORD=1; '
         '_unfooled_completion unfooled; echo "${COMPREPLY[*]}"'],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == ["evaluate"], done.stderr


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_a_shell_that_is_not_known_is_a_usage_error_in_one_line(tmp_path, monkeypatch, capsys, option):
    import shellingham

    from unfooled.cli import run

    monkeypatch.setenv("HOME", str(tmp_path))
    assert run([option, "zsh"]) == 64
    assert "takes no 'zsh': _UNFOOLED_COMPLETE=source_bash unfooled prints" in capsys.readouterr().err
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    assert run([option]) == 64
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert "tcsh is no shell that words can be completed in" in told.err

    def none():
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", none)
    assert run([option]) == 64
    assert "No shell is asking" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_names_are_those_that_there_are():
    from unfooled import certificates, data, models
    from unfooled.attacks import ATTACKS, PLANS
    from unfooled.cli import listing
    from unfooled.defenses import DEFENSES
    from unfooled.protocols import PROTOCOLS
    from unfooled.studies.registry import STUDIES
    from unfooled.threats import THREATS, Threat
    from unfooled.training import RECIPES

    assert NAMES["attacks"] == (*ATTACKS, *NAMES["attacks"][len(ATTACKS) :])
    assert [name.rstrip(":(") for name in NAMES["attacks"][len(ATTACKS) :]] == list(PLANS)
    assert NAMES["certificates"] == ("auto", *certificates.METHODS)
    assert set(NAMES["data"]) == set(data.names())
    assert set(NAMES["defenses"]) == set(DEFENSES)
    assert NAMES["models"] == (*models.BUNDLED, *models.NETWORKS, "timm:", "hf:", "https://")
    assert NAMES["networks"] == tuple(models.NETWORKS)
    assert NAMES["protocols"] == tuple(PROTOCOLS)
    assert NAMES["recipes"] == tuple(RECIPES)
    assert NAMES["studies"] == tuple(STUDIES)
    assert [name.partition(":")[0] for name in NAMES["threats"]] == list(THREATS)
    assert all(str(Threat.parse(name)) for name in NAMES["threats"])
    assert set(listing.KINDS) > {"attacks", "data"}


def test_a_tab_imports_no_torch():
    code = (
        "import sys\nfrom unfooled.cli import run\n"
        "try:\n    run([])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    env = os.environ | {
        "_UNFOOLED_COMPLETE": "complete_bash",
        "COMP_WORDS": "unfooled evaluate fash",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "fashion-mnist/plain" in done.stdout
