"""Peers in PyTorch: found where they are installed, filled with weights that a seed repeats, read by a rule table.

It lies beside conftest.py, whose folder is on the path of every test.
"""

from __future__ import annotations

import importlib

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.weights.rules import load_pretrained

_declared = []  # operators live as long as the object that declared them


def import_peer(name):
    """A peer's module; where it is not installed the test is skipped."""
    torch = pytest.importorskip("torch")
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pytest.skip("needs torchvision")
    except RuntimeError:
        # Built without its compiled operators, which nothing here calls: it only wants to know their names.
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    return pytest.importorskip(name)


def draw_weights(module, rng, *inputs):
    """Fills a torch module in place, and puts it in evaluation mode; `inputs` set its running statistics.

    With statistics drawn at random activations grow from layer to layer, until float32 itself is off by more than
    a parity test should allow. Without `inputs` they are drawn.
    """
    torch = importlib.import_module("torch")
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 4:
            fan_in = np.prod(tensor.shape[1:])
            values = rng.normal(size=tensor.shape, scale=(2 / fan_in) ** 0.5)
        elif name.endswith((".weight", "running_var")):
            values = rng.uniform(0.5, 1.5, tensor.shape)
        elif tensor.ndim:
            values = rng.normal(size=tensor.shape, scale=0.1)
        else:
            continue
        tensor.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    if inputs:
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0  # torch's is the weight of the new statistic
        with torch.no_grad():
            module.train()(*map(to_torch, inputs))
    return module.eval()


def load_state(module, rules, model, *inputs):
    """A torch module's weights as variables of `model`; every array must find its place, and every place its array."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))
    # Stand-ins of the right shape and type that take no memory.
    target = {
        path: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for path, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()
    }
    source = {name: np.asarray(tensor) for name, tensor in module.state_dict().items() if tensor.ndim}
    flat, report = load_pretrained(source, rules, target)
    assert report.is_complete, str(report)
    assert not report.skipped, str(report)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def to_torch(x):
    """Images or features with torch's order of axes."""
    return importlib.import_module("torch").from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def relative_error(ours, theirs):
    """The largest difference, over the spread of theirs; theirs is a torch map."""
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    assert ours.shape == theirs.shape
    return float(jnp.abs(ours - theirs).max() / theirs.std())
