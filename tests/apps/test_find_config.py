"""Configs by name and by path, as the command and the library find them."""

from __future__ import annotations

import sys
import types

import pytest

from deeplab_jax.apps.find_config import FOLDER, config_names, load_config
from deeplab_jax.config import Config
from deeplab_jax.types import UserError

OWN = """
from __future__ import annotations

import dataclasses

from configs.common import v3plus_paper

@dataclasses.dataclass
class Recipe:
    seed: int

def get_config(seed="0"):
    config = v3plus_paper()
    config.seed = Recipe(int(seed)).seed
    return config
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_names_are_those_of_the_folder():
    assert {"quickstart", "v3plus_voc", "v3plus_voc_large_batch"} <= set(config_names())
    assert not {"common", "__init__"} & set(config_names())


@pytest.mark.parametrize("name", ["v3plus_voc_large_batch:32", "v3plus_voc_large_batch.py:32"])
def test_one_of_the_projects_own_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).data.batch_size == 32
    assert load_config(name) is not load_config(name)


def test_a_path_goes_before_a_name(own, tmp_path, monkeypatch):
    own.rename(tmp_path / "quickstart.py")
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart.py:7").seed == 7
    assert load_config("quickstart") == load_config(str(FOLDER / "quickstart.py"))


def test_another_package_called_configs_is_put_back(own, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    theirs = types.ModuleType("configs")
    monkeypatch.setitem(sys.modules, "configs", theirs)
    assert isinstance(load_config(f"{own}:3"), Config)
    assert sys.modules["configs"] is theirs
    assert "configs.common" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "own.py: AttributeError: module 'config_file_own' has no attribute 'get_config'"),
        ("import nowhere", "own.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config():\n    return 1 / 0", "own.py:2: ZeroDivisionError: division by zero"),
        ("def get_config(:", "own.py: SyntaxError: invalid syntax"),
        ("def get_config():\n    return None", "must return a deeplab_jax.config.Config"),
    ],
)
def test_a_file_that_fails_is_one_line(own, text, message):
    own.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(str(own))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_gets_the_near_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--config=v3plus_vok: no such file; did you mean 'v3plus_voc'"):
        load_config("v3plus_vok")
