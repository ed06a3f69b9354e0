"""The train step: eight devices are one, slices are the whole, and a bad batch leaves no trace."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
from toy import IGNORE, Toy, make_batch, make_toy, to_host

from deeplab_jax.config import OptimizerConfig
from deeplab_jax.ops.mesh import shard_batch


def run(num_steps=4, batches=make_batch, **options):
    state, step, mesh = make_toy(**options)
    history = []
    for k in range(num_steps):
        state, metrics = step(state, shard_batch(batches(k), mesh))
        history.append(to_host(metrics))
    return to_host(state), history


def assert_close(got, want, atol):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=atol, rtol=0), got, want)


@pytest.mark.parametrize("options", [{}, {"accumulation_steps": 2}, {"dropout": 0.5}, {"ema_decay": 0.9}])
def test_eight_devices_equal_one(options):
    one, one_history = run(num_devices=1, **options)
    eight, eight_history = run(num_devices=8, **options)
    # The same float32 sums in another order: a few ulp of values near 1, over four steps.
    assert_close(eight, one, atol=1e-5)
    assert_close(eight_history, one_history, atol=1e-5)


def test_the_loss_falls_and_the_parameters_move():
    _, history = run(num_steps=20)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["pixel_accuracy"] > history[0]["pixel_accuracy"]
    assert all(metrics["gradient_norm"] > 0 and metrics["skipped"] == 0 for metrics in history)


def test_accumulated_slices_equal_the_whole_batch_without_batch_norm():
    whole, whole_history = run(batch_norm=False)
    slices, slices_history = run(batch_norm=False, accumulation_steps=4)
    assert_close(slices, whole, atol=1e-5)  # order of float32 sums
    assert_close(slices_history, whole_history, atol=1e-5)


def test_batch_norm_statistics_move_once_per_slice():
    """The statistics after one accumulated step are those of the slices shown one after the other."""
    accumulated, _ = run(num_steps=1, accumulation_steps=2)
    state, _, _ = make_toy()
    batch, variables = make_batch(0), state.variables
    for j in range(2):
        _, updated = Toy().apply(variables, batch.image[j::2], train=True, mutable=["batch_stats"])
        variables = {**variables, **updated}
    assert_close(accumulated.batch_stats, to_host(variables["batch_stats"]), atol=1e-6)


def test_loss_is_the_mean_over_the_global_batch():
    """Not the mean of the devices' means: rows differ in how much of them is ignored."""
    state, step, mesh = make_toy(num_devices=8, batch_norm=False)
    batch = make_batch(0)
    logits = np.asarray(Toy(batch_norm=False).apply(state.variables, batch.image, train=False), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    counted = batch.label != IGNORE
    picked = np.take_along_axis(log_p, np.where(counted, batch.label, 0)[..., None], axis=-1)[..., 0]
    correct = (logits.argmax(axis=-1) == batch.label) & counted
    _, metrics = step(state, shard_batch(batch, mesh))
    np.testing.assert_allclose(metrics["loss"], -picked[counted].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["pixel_accuracy"], correct.sum() / counted.sum(), rtol=1e-6)


def test_invalid_rows_contribute_nothing():
    def short(k):
        batch = make_batch(k, size=16)
        return batch._replace(valid=np.arange(16) < 11)

    def masked(k):
        batch = make_batch(k, size=16)
        label = batch.label.copy()
        label[11:] = IGNORE
        return batch._replace(label=label)

    got, got_history = run(batches=short)
    want, want_history = run(batches=masked)
    assert_close(got, want, atol=0)
    assert_close(got_history, want_history, atol=0)


def test_a_batch_without_a_single_label_is_harmless():
    def blank(k):
        batch = make_batch(k)
        return batch._replace(label=np.full_like(batch.label, IGNORE))

    _, history = run(num_steps=2, batches=blank)
    assert [metrics["loss"] for metrics in history] == [0, 0]
    assert [metrics["skipped"] for metrics in history] == [0, 0]


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_wrong_label_skips_the_update_but_counts_the_step(accumulation_steps):
    options = {"ema_decay": 0.9, "accumulation_steps": accumulation_steps, "num_devices": 2}
    state, step, mesh = make_toy(**options)
    before = to_host(state)
    bad = make_batch(0)
    bad.label[3, 4, 4] = 77
    state, metrics = step(state, shard_batch(bad, mesh))
    after = to_host(state)
    assert metrics["skipped"] == 1
    assert after.step == 1
    for name in ("params", "batch_stats", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    state, metrics = step(state, shard_batch(make_batch(1), mesh))
    assert metrics["skipped"] == 0
    assert not np.array_equal(
        to_host(state).params["head"]["logits"]["kernel"], before.params["head"]["logits"]["kernel"]
    )


def test_the_average_follows_its_equation():
    state, step, mesh = make_toy(ema_decay=0.15)
    ema = to_host(state.ema)
    for k in range(3):
        state, _ = step(state, shard_batch(make_batch(k), mesh))
        decay = min(0.15, (1 + k) / (10 + k))
        ema = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, ema, to_host(dict(state.variables)))
    assert_close(to_host(state.ema), ema, atol=1e-6)
    assert not np.array_equal(state.ema["params"]["head"]["logits"]["kernel"], state.params["head"]["logits"]["kernel"])
    assert state.eval_variables is state.ema


def test_young_statistics_of_batch_norm_follow_the_batches():
    """From the statistics alone: with a decay of 0 they are those of the last batch."""

    def after(num_steps, decay):
        state, _ = run(num_steps, batch_norm_decay=decay, optimizer=OptimizerConfig(learning_rate=1e-30))
        return state.batch_stats["backbone"]["bn"]

    batches = [after(num_steps, 0.0) for num_steps in (1, 2)]
    expected = {"mean": np.zeros(6), "var": np.ones(6)}
    for t, (batch, decay) in enumerate(zip(batches, (1 / 10, 0.15), strict=True)):
        expected = {key: decay * expected[key] + (1 - decay) * batch[key] for key in batch}
        assert_close(after(t + 1, 0.15), expected, atol=1e-6)


def test_dropout_depends_on_seed_and_step_alone():
    first, first_history = run(dropout=0.5, num_steps=3, batches=lambda _: make_batch(0))
    again, again_history = run(dropout=0.5, num_steps=3, batches=lambda _: make_batch(0))
    assert_close(first, again, atol=0)
    assert_close(first_history, again_history, atol=0)
    state, step, mesh = make_toy(dropout=0.5)
    batch = shard_batch(make_batch(0), mesh)
    moved = make_toy(dropout=0.5)[0]
    moved = type(moved)(**{**vars(moved), "step": moved.step + 1})
    _, at_zero = step(state, batch)
    _, at_one = step(moved, batch)
    assert at_zero["loss"] != at_one["loss"]  # the same weights and batch, another mask


def test_metrics_are_float32_scalars():
    _, history = run(num_steps=1)
    assert set(history[0]) == {"loss", "learning_rate", "gradient_norm", "pixel_accuracy", "skipped"}
    assert all(value.dtype == np.float32 and value.shape == () for value in history[0].values())


def test_the_state_is_donated():
    state, step, mesh = make_toy()
    step(state, shard_batch(make_batch(0), mesh))
    assert state.params["head"]["logits"]["kernel"].is_deleted()


def test_the_program_updates_the_state_in_place_and_never_asks_the_host():
    state, step, mesh = make_toy(num_devices=2, ema_decay=0.9)
    batch = shard_batch(make_batch(0), mesh)
    program = step.lower(state, batch).compile()
    text = program.as_text()
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry_computation", text, re.DOTALL)
    assert aliases[1].count("alias)") == len(jax.tree.leaves(state))
    assert not re.search(r"callback|infeed\(|outfeed\(|send\(|recv\(", text)
    with jax.transfer_guard("disallow"):
        state, _ = program(state, batch)
        step(state, batch)
