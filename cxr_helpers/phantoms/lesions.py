"""Pneumonia as in textbooks: lobar consolidation, or perihilar interstitial change."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from cxr_helpers.phantoms import anatomy


def lesion(x, y, name: str, build: SimpleNamespace, rng: np.random.Generator) -> tuple:
    """Draw consolidation and interstitial change, each 0 to 1; return both and the severity."""
    nothing = np.zeros_like(x)
    if name == "normal":
        return nothing, nothing, 0.0
    severity = float(0.2 + 0.8 * rng.beta(1.8, 1.1))
    if name == "viral":
        return nothing, _interstitial(x, y, rng), severity
    dense = nothing
    broncho = rng.random() < 0.2  # bronchopneumonia: many small, faint foci
    for _ in range(rng.integers(3, 6) if broncho else rng.choice([1, 2], p=[0.7, 0.3])):
        dense = np.maximum(dense, _focus(x, y, build, rng, spread=broncho))
    return dense, nothing, severity * (0.6 if broncho else 1.0)


def _focus(x, y, build: SimpleNamespace, rng: np.random.Generator, *, spread: bool) -> np.ndarray:
    """Draw a consolidated region: a ragged ellipse, sometimes bounded by a straight fissure."""
    side = rng.choice([-1, 1])
    height = rng.uniform(-0.45, build.base - 0.06)
    inner = 0.22 + (0.16 * (height > -0.05) if side > 0 else 0)
    at = (float(side * rng.uniform(inner, 0.80 * build.chest)), height)
    axes = rng.uniform(0.15, 0.22 if spread else 0.36) * np.exp(rng.normal(0, 0.15, 2))
    reach = anatomy.radius(x, y, at=at, axes=tuple(axes), tilt=rng.uniform(0, np.pi))
    angle = np.arctan2(y - at[1], x - at[0])
    for lobes, amount in ((2, 0.12), (3, 0.12), (5, 0.08)):
        reach = reach * (1 + amount * np.sin(lobes * angle + rng.uniform(0, 2 * np.pi)))
    side_kept = float(rng.choice([-1, 1]))
    sharp, has_fissure = rng.uniform(0.2, 0.75), rng.random() < 0.35
    focus = anatomy.step(1 - reach, sharp)
    beyond = anatomy.step(side_kept * (y - at[1]) + 0.3 * float(axes[1]), 0.015)
    return focus * beyond if has_fissure else focus


def _interstitial(x, y, rng: np.random.Generator) -> np.ndarray:
    """Draw bilateral change, strongest around the hila and unequal between the sides."""
    sides = [
        float(strength)
        * np.exp(-((anatomy.radius(x, y, at=tuple(at), axes=(0.33, 0.42)) / float(reach)) ** 2))
        for at, strength, reach in zip(
            anatomy.HILA + rng.normal(0, 0.04, (2, 2)),
            rng.uniform(0.7, 1, 2),
            rng.uniform(0.75, 1.3, 2),
            strict=True,
        )
    ]
    return np.maximum(*sides)
