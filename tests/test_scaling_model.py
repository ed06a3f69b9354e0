"""The paper model of scaling: its limits, and a step on two chips worked out by hand."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.scaling_model import (
    ASSUMED,
    CLUSTERS,
    LARGEST_BATCH,
    NUM_CHIPS,
    Cluster,
    Network,
    latency,
    predict,
    where_it_stops,
)

# About v3+ ResNet-101's counts.
NETWORK = Network(
    operations=6 * 10**11,
    bytes_per_image=4.5e9,
    bytes_per_step=1.4e9,
    gradient_bytes=238_000_000,
    num_norms=115,
    num_spatial=50,
)
BY_NAME = {cluster.name: cluster for cluster in CLUSTERS}


@pytest.fixture(params=CLUSTERS, ids=lambda cluster: cluster.name)
def rows(request):
    return [predict(NETWORK, request.param, num_chips, 16) for num_chips in NUM_CHIPS]


def test_one_chip_waits_for_nobody(rows):
    assert rows[0]["gradients"] == rows[0]["batch norm"] == rows[0]["halos"] == 0
    assert rows[0]["images_per_second"] == pytest.approx(16 / rows[0]["chip"])


def test_no_cluster_is_faster_than_linear_and_none_shrinks_while_the_batch_grows(rows):
    alone = rows[0]["images_per_second"]
    assert all(row["images_per_second"] <= alone * row["chips"] * (1 + 1e-9) for row in rows)
    growing = [row for row in rows if row["batch"] == 16 * row["chips"] and row["chips"] > 1]
    assert all(
        after["images_per_second"] > before["images_per_second"] for before, after in itertools.pairwise(growing)
    )


def test_the_batch_stops_where_the_recipes_do(rows):
    assert [row["batch"] for row in rows] == [min(16 * n, LARGEST_BATCH) for n in NUM_CHIPS]
    assert [row["halos"] > 0 for row in rows] == [n > LARGEST_BATCH for n in NUM_CHIPS]


def test_groups_of_a_chips_images_need_no_talk(rows):
    assert all((row["batch norm"] > 0) == (row["batch"] < 16 * row["chips"]) for row in rows)


def test_statistics_of_the_whole_batch_cost_more():
    for cluster in CLUSTERS:
        assert predict(NETWORK, cluster, 64, 0)["batch norm"] > predict(NETWORK, cluster, 64, 16)["batch norm"] == 0


def test_two_gpus_by_hand():
    """H100: 450 GB/s one way, 80 % of it used; each sends half of the gradients twice."""
    row = predict(NETWORK, BY_NAME["H100, InfiniBand"], 2, 16)
    assert row["gradients"] == pytest.approx(2 * 238e6 * 0.5 / (450e9 * 0.8))
    assert row["chip"] == pytest.approx((16 * 4.5e9 + 1.4e9) / 3352e9 / ASSUMED["share"][0])


def test_ethernet_pays_for_the_second_machine():
    fast, slow = (predict(NETWORK, BY_NAME[f"H100, {net}"], 16, 16) for net in ("InfiniBand", "Ethernet"))
    across = 2 * (238e6 / 8) * 0.5 / (12.5e9 / 8 * 0.8)
    assert slow["gradients"] - across == pytest.approx(2 * 238e6 * (7 / 8) / (450e9 * 0.8))
    assert slow["gradients"] > 5 * fast["gradients"]


def test_latency_grows_with_the_torus_and_with_each_doubling_of_domains():
    cluster = Cluster("any", "v5e", 256, 1e9, 3e-6, 0.5, 50e-6, "")
    assert latency(cluster, 1) == 0
    assert latency(cluster, 2) == pytest.approx(3e-6)
    assert latency(cluster, 128) == pytest.approx(8 * 3e-6)
    assert latency(cluster, 1024) - latency(cluster, 256) == pytest.approx(2 * 50e-6)


def test_the_end_is_named_with_its_reason(rows):
    text = where_it_stops(rows)
    assert "Worth it up to" in text or "Each doubling" in text
