"""Slow twins of all losses: image by image and pixel by pixel in float64, by the definitions of the papers.

Each takes logits [b, h, w, c], a label and class weights, and gives (sum, weight).
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


@over_images
def tversky(p, truth, alpha=0.3, beta=0.7, smooth=0.0):
    hit = sum(p[truth])
    union = hit + alpha * sum(p[~truth]) + beta * sum(1 - p[truth])
    return 1 - (hit + smooth) / (union + smooth)


@over_images
def soft_dice(p, truth, smooth=0.0):
    return 1 - (2 * p @ truth + 2 * smooth) / (p.sum() + truth.sum() + 2 * smooth)


@over_images
def lovasz_softmax(p, truth):
    error = np.abs(truth - p)
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
    "tversky.soft_tversky": tversky,
    "dice.soft_dice": soft_dice,
    "lovasz.lovasz_softmax": lovasz_softmax,
}
