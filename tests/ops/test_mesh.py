"""Which devices share what: the order of processes, and meshes that cannot be."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import pytest

from deeplab_jax.ops.mesh import idle_devices, make_mesh, shard_longest_axis


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh asks of a device that is not there."""

    process_index: int
    id: int
    platform: str = "tpu"


def hosts(num_hosts: int, each: int) -> list[Any]:
    """Devices of several hosts, the last host first."""
    return [Device(host, host * each + k) for host in reversed(range(num_hosts)) for k in range(each)]


@pytest.mark.usefixtures("unchecked_types")
def test_devices_that_share_an_image_are_of_one_process():
    mesh = make_mesh(0, 2, hosts(2, 4))
    assert mesh.shape == {"data": 4, "space": 2}
    assert [device.id for device in mesh.devices.flat] == list(range(8))
    assert all(len({device.process_index for device in row}) == 1 for row in mesh.devices)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("num_data", "num_space", "num_hosts", "message"),
    [
        (9, 1, 1, "9 devices asked for, 4 present"),
        (2, 1, 2, "2 of 8 devices asked for: several processes must use all"),
        (1, 8, 2, "8 devices for an image are no divisor of the 4 that a process has"),
    ],
)
def test_what_cannot_be_shared_is_told(num_data, num_space, num_hosts, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(num_data, num_space, hosts(num_hosts, 4))


def test_one_process_may_leave_devices_idle():
    mesh = make_mesh(3, 2)
    assert idle_devices(mesh) == jax.devices()[6:]
    assert shard_longest_axis((5, 6, 9), mesh).spec == jax.sharding.PartitionSpec(None, None, "data")
    assert shard_longest_axis((5, 7), mesh).spec == jax.sharding.PartitionSpec()
