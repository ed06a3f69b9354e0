"""Slow twins of all losses: image by image and pixel by pixel in float64, by the definitions of the papers.

Each takes logits [b, h, w, c], a label and class weights, and gives (sum, weight). Those of SIGMOID_TWINS take a label
[b, h, w] with one logit, and class weights of background and object, or one [b, h, w, c] and a weight of each class.
"""

from __future__ import annotations

import math

import numpy as np

IGNORE = 255


def softmax(z):
    exponents = np.exp(z.astype(np.float64) - z.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def pixels_of(logits, label):
    """Per image: probabilities [n, c] and labels [n] of the pixels that count."""
    for z, y in zip(logits, label, strict=True):
        yield softmax(z)[y != IGNORE], y[y != IGNORE].astype(int)


def over_pixels(pixel_loss):
    def twin(logits, label, weights, **arguments):
        total, weight = 0.0, 0.0
        for p, y in pixels_of(logits, label):
            for probabilities, true in zip(p, y, strict=True):
                total += weights[true] * pixel_loss(probabilities, true, **arguments)
                weight += weights[true]
        return total, weight

    return twin


def over_images(class_loss):
    def twin(logits, label, weights, **arguments):
        total, weight = 0.0, 0.0
        for p, y in pixels_of(logits, label):
            present = sorted(set(y))
            image_weight = sum(weights[c] for c in present)
            if image_weight:
                losses = [weights[c] * class_loss(p[:, c], y == c, **arguments) for c in present]
                total += len(y) * sum(losses) / image_weight
                weight += len(y)
        return total, weight

    return twin


@over_pixels
def softmax_cross_entropy(p, true, label_smoothing=0.0):
    target = np.full(len(p), label_smoothing / len(p))
    target[true] += 1 - label_smoothing
    return -sum(q * math.log(value) for q, value in zip(target, p, strict=True))


@over_pixels
def softmax_focal(p, true, gamma=2.0):
    return -((1 - p[true]) ** gamma) * math.log(p[true])


def tversky_of(p, truth, alpha=0.3, beta=0.7, smooth=0.0):
    hit = sum(p[truth])
    union = hit + alpha * sum(p[~truth]) + beta * sum(1 - p[truth])
    return 1 - (hit + smooth) / (union + smooth)


def dice_of(p, truth, smooth=0.0):
    return 1 - (2 * p @ truth + 2 * smooth) / (p.sum() + truth.sum() + 2 * smooth)


def lovasz_of(error, truth):
    """The Lovász extension of 1 - IoU, which is 1 where anything is wrong and nothing is true."""
    total, before = 0.0, 0.0
    wrong = np.zeros(len(truth), bool)
    for pixel in np.argsort(-error, kind="stable"):
        wrong[pixel] = True
        jaccard = wrong.sum() / (truth | wrong).sum()
        total, before = total + error[pixel] * (jaccard - before), jaccard
    return total


TWINS = {
    "cross_entropy.softmax_cross_entropy": softmax_cross_entropy,
    "focal.softmax_focal": softmax_focal,
    "tversky.soft_tversky": over_images(tversky_of),
    "dice.soft_dice": over_images(dice_of),
    "lovasz.lovasz_softmax": over_images(lambda p, truth: lovasz_of(np.abs(truth - p), truth)),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z.astype(np.float64)))


def maps_of(logits, label, weights):
    """Per image and logit: logits [n] and labels [n] of the pixels that count, and the weights of label 0 and of 1."""
    for image, labels in zip(logits, label, strict=True):
        for k in range(logits.shape[-1]):
            y = labels if labels.ndim == 2 else labels[..., k]
            pair = weights if labels.ndim == 2 else (weights[k], weights[k])
            yield image[..., k][y != IGNORE].astype(np.float64), y[y != IGNORE].astype(int), pair


def over_map_pixels(pixel_loss):
    def twin(logits, label, weights, **arguments):
        total, weight = 0.0, 0.0
        for z, y, pair in maps_of(logits, label, weights):
            for logit, true in zip(z, y, strict=True):
                total += pair[true] * pixel_loss(logit, true, **arguments)
                weight += pair[true]
        return total, weight

    return twin


def over_maps(map_loss, *, absent=False):
    def twin(logits, label, weights, **arguments):
        total, weight = 0.0, 0.0
        for z, y, pair in maps_of(logits, label, weights):
            own = 1.0 if label.ndim == 3 else pair[0]
            if len(y) and (absent or y.any()):
                total += own * len(y) * map_loss(z, y == 1, **arguments)
                weight += own * len(y)
        return total, weight

    return twin


@over_map_pixels
def sigmoid_cross_entropy(z, true, label_smoothing=0.0, pos_weight=1.0):
    q, p = (1 - label_smoothing) * true + label_smoothing / 2, sigmoid(z)
    return -(pos_weight * q * math.log(p) + (1 - q) * math.log(1 - p))


@over_map_pixels
def sigmoid_focal(z, true, gamma=2.0, alpha=None):
    p = sigmoid(z) if true else 1 - sigmoid(z)
    factor = 1.0 if alpha is None else alpha if true else 1 - alpha
    return -factor * (1 - p) ** gamma * math.log(p)


SIGMOID_TWINS = {
    "cross_entropy.sigmoid_cross_entropy": sigmoid_cross_entropy,
    "focal.sigmoid_focal": sigmoid_focal,
    "tversky.sigmoid_tversky": over_maps(lambda z, y, **arguments: tversky_of(sigmoid(z), y, **arguments)),
    "dice.sigmoid_dice": over_maps(lambda z, y, **arguments: dice_of(sigmoid(z), y, **arguments)),
    "lovasz.lovasz_hinge": over_maps(lambda z, y: lovasz_of(np.maximum(0, 1 - np.where(y, z, -z)), y), absent=True),
}
