"""The package as others get it: built, installed into an environment of its own, and run from another folder."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

import pytest
from PIL import Image

import deeplab_jax

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OWN_CONFIG = """
import beside
from configs import common
from configs.common import v3plus_paper

def get_config(width):
    config = v3plus_paper()
    assert type(config) is type(common.v3plus_paper())
    config.data.crop_size = (beside.SIDE, int(width))
    return config
"""


def requirements(name):
    lines = (REPOSITORY / f"requirements{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def test_requirements_stand_the_same_in_both_places():
    assert PROJECT["dependencies"] == requirements("")
    assert PROJECT["optional-dependencies"]["export"] == requirements("-export")
    assert PROJECT["optional-dependencies"]["dev"] == requirements("-dev")
    assert set(PROJECT["optional-dependencies"]) == {"cuda12", "cuda13", "tpu", "export", "dev"}


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments), "--no-deps", "-q"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", REPOSITORY, "--no-build-isolation", "--wheel-dir", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of commands of an environment that has the wheel, and sees the packages that this one has."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip("--python", folder / "bin" / "python", "install", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(environment, cwd, command, *arguments):
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")}
    return subprocess.run(
        [environment / command, *map(str, arguments)],
        cwd=cwd,
        env={**variables, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_wheel_has_one_package_and_all_of_it(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"deeplab_jax"}
    wanted = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "deeplab_jax").rglob("*") if path.is_file()}
    wanted |= {pathlib.Path("deeplab_jax", path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("configs/*.py")}
    assert names == {path.as_posix() for path in wanted if "__pycache__" not in path.parts}
    assert "deeplab_jax/py.typed" in names
    assert wheel.name.split("-")[1] == deeplab_jax.__version__


def test_the_installed_package_is_the_one_that_is_imported(environment, tmp_path):
    code = "import deeplab_jax, sys; print(deeplab_jax.__version__, deeplab_jax.__file__, 'jax' in sys.modules)"
    version, file, has_jax = run(environment, tmp_path, "python", "-c", code).stdout.split()
    assert (version, has_jax) == (deeplab_jax.__version__, "False")
    assert pathlib.Path(file).is_relative_to(environment.parent)


def test_the_command_says_how_it_is_used(environment, tmp_path):
    done = run(environment, tmp_path, "deeplab-jax", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("deeplab-jax --config=")
    assert "crf-search: " in done.stdout


def test_the_command_takes_configs_by_name(environment, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    for gray, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (40, 30), (gray, gray, gray)).save(tmp_path / "own" / "images" / name)
        mask = Image.new("L", (40, 30))
        mask.paste(255, (0, 0, 20, 30))
        mask.save(tmp_path / "own" / "masks" / name)
    (tmp_path / "own" / "classes.txt").write_text("ground\n")
    data = ["--config.data.dataset=folder", "--config.data.root=own"]
    done = run(environment, tmp_path, "deeplab-jax", "--config=quickstart", "--workdir=run", "--mode=lint", *data)
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
    assert (tmp_path / "run" / "lint.json").exists()


@pytest.mark.parametrize(
    ("config", "status", "message"),
    [
        ("v3plus_voc_large_batch.py:1024", 2, "error: config.mesh.space=0: "),
        ("v3plus_vok", 2, "error: --config=v3plus_vok: no such file; did you mean 'v3plus_voc'"),
        ("configs/v3plus_voc.py", 2, "error: --config=configs/v3plus_voc.py: no such file; did you mean 'v3plus_voc'"),
        ("own/mine.py:65", 2, "error: config.mesh.space=0: "),
        ("own/mine.py:wide", 2, "mine.py:9: ValueError: invalid literal for int() with base 10: 'wide'"),
    ],
)
def test_the_module_is_the_same_command(environment, tmp_path, config, status, message):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(OWN_CONFIG)
    (tmp_path / "own" / "beside.py").write_text("SIDE = 33\n")
    arguments = [f"--config={config}", "--workdir=run", "--config.mesh.space=0"]
    done = run(environment, tmp_path, "python", "-m", "deeplab_jax", *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
