"""The set-up scripts: which Python they take, what they say when there is none, when they install."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parent.parent / "launch"
TOOLS = ("bash", "dirname", "cat", "cksum", "rm", "mkdir", "sed", "env")


@pytest.fixture
def house(tmp_path):
    """A repository with nothing but the scripts, in a folder whose name has a space."""
    root = tmp_path / "the house"
    shutil.copytree(LAUNCH, root / "launch")
    return root


@pytest.fixture
def bin_folder(tmp_path):
    """A search path with shell tools and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def add_python(folder, name, *, version="3.12", has_venv=True, exit_code=0):
    """A pretended Python that answers the two questions that the scripts ask."""
    script = folder / name
    script.write_text(
        f"""#!/bin/sh
[ {exit_code} = 0 ] || exit {exit_code}
case "$2" in
  *version_info*) echo {version} ;;
  *ensurepip*) exit {0 if has_venv else 1} ;;
esac
"""
    )
    script.chmod(0o755)
    return script


def run(house, script, bin_folder=None, **env):
    environment = {**{key: value for key, value in os.environ.items() if key != "PYTHON"}, **env}
    if bin_folder is not None:
        environment["PATH"] = str(bin_folder)
    command = f"set -euo pipefail; source launch/setup.sh; {script}"
    return subprocess.run(
        [shutil.which("bash"), "-c", command], cwd=house, env=environment, capture_output=True, text=True, timeout=60
    )


def found(house, bin_folder, **env):
    result = run(house, 'find_python; echo "$base_python"', bin_folder, **env)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def one_error_line(result):
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_shim_that_runs_nothing_is_passed_over(house, bin_folder):
    add_python(bin_folder, "python3.12", exit_code=127)
    add_python(bin_folder, "python3.13", exit_code=127)
    taken = add_python(bin_folder, "python3.11", version="3.11")
    assert found(house, bin_folder) == str(taken)


def test_the_preferred_version_wins(house, bin_folder):
    taken = add_python(bin_folder, "python3.12", version="3.12")
    add_python(bin_folder, "python3.11", version="3.11")
    add_python(bin_folder, "python3", version="3.13")
    assert found(house, bin_folder) == str(taken)


def test_too_new_and_too_old_are_passed_over(house, bin_folder):
    add_python(bin_folder, "python3", version="3.15")
    taken = add_python(bin_folder, "python", version="3.14")
    assert found(house, bin_folder) == str(taken)


def test_variable_python_overrides(house, bin_folder):
    add_python(bin_folder, "python3.12")
    other = add_python(bin_folder, "mine", version="3.11")
    assert found(house, bin_folder, PYTHON=str(other)) == str(other)


def test_no_python_says_what_to_install(house, bin_folder):
    line = one_error_line(run(house, "find_python", bin_folder))
    assert "no Python 3.11 to 3.14 runs here" in line
    assert "apt-get install python3" in line


def test_python_without_venv_says_what_to_install(house, bin_folder):
    add_python(bin_folder, "python3.12", has_venv=False)
    line = one_error_line(run(house, "find_python", bin_folder))
    assert "apt-get install python3.12-venv" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exit_code": 127}, "does not run"),
        ({"version": "3.9"}, "is Python 3.9"),
        ({"has_venv": False}, "has no venv module"),
    ],
)
def test_a_wrong_override_is_refused(house, bin_folder, settings, message):
    other = add_python(bin_folder, "mine", **settings)
    line = one_error_line(run(house, "find_python", bin_folder, PYTHON=str(other)))
    assert message in line
    assert str(other) in line


@pytest.mark.skipif(not (3, 11) <= sys.version_info[:2] <= (3, 14), reason="needs a supported Python")
def test_environment_is_made_kept_and_mended(house):
    script = f"base_python={sys.executable!r}; make_environment; " + '"$python" -c "import sys; print(sys.prefix)"'
    first = run(house, script)
    assert first.returncode == 0, first.stderr
    assert "making .venv" in first.stdout
    assert first.stdout.splitlines()[-1] == str(house / ".venv")

    assert "making" not in run(house, script).stdout

    (house / ".venv" / "bin" / "python").unlink()
    assert "making .venv" in run(house, script).stdout


def test_requirements_are_installed_only_when_they_changed(house):
    (house / ".venv").mkdir()
    (house / "r.txt").write_text("one\n")
    pip = house / "pip"
    pip.write_text('#!/bin/sh\necho "pip $*" >> pip.log\n')
    pip.chmod(0o755)
    script = "python=./pip; install_requirements r.txt"
    for _ in range(2):
        assert run(house, script).returncode == 0
    assert len((house / "pip.log").read_text().splitlines()) == 1
    (house / "r.txt").write_text("two\n")
    run(house, script)
    assert len((house / "pip.log").read_text().splitlines()) == 2


def test_a_failed_install_is_tried_again(house):
    (house / ".venv").mkdir()
    (house / "r.txt").write_text("one\n")
    for _ in range(2):
        line = one_error_line(run(house, "python=false; install_requirements r.txt"))
        assert "PIP_INDEX_URL" in line


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
