"""A hostile JAX for every test: eight host devices, no silent broadcasting, exact matrix products.

Every call of the package is checked against its annotations, shapes and dtypes included; CHECK_TYPES=0 leaves that out.
Warnings are errors (pyproject.toml). Compilations are kept between runs, since they are most of the time.
"""

import os
import pathlib

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import numpy as np
import pytest

if os.environ.get("CHECK_TYPES") != "0":
    # NumPy's arrays serve where JAX's are asked for, and a shape where nothing is computed.
    jaxtyping.Array = jax.Array | np.ndarray | jax.ShapeDtypeStruct
    jaxtyping.install_import_hook("deeplab_jax", "checked_types.check")  # before anything of the package is imported

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def pytest_collection_modifyitems(config, items):
    """What takes minutes is left to `pytest -m slow`."""
    if "slow" in config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def unchecked_types():
    """For what annotations forbid: where a function's own message is wanted, or a stand-in is of another type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real images and weights beside the repository, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real images and weights beside the repository")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Programs in memory would grow to gigabytes over the suite; those on disk stay."""
    yield
    jax.clear_caches()
