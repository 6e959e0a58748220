"""Attenuation maps of a child's chest in frontal (AP) projection.

Every shape is a function of anatomical coordinates: ``x`` runs to the viewer's right (the
patient's left), ``y`` runs down, and the image spans about -1 to 1 on both axes. A pose is thus
a change of coordinates, exact at any image size. Values are attenuation (thickness times
coefficient, no unit), near 1 for soft tissue through the middle of the trunk; along a ray they
add up (Beer-Lambert law). Proportions follow any atlas of paediatric radiographs: a barrel
chest with nearly horizontal posterior ribs, a wide heart, and a thymus in some.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

# Properties of a patient, the same in each image: uniform between the two values.
HABITUS = {
    "trunk": (0.78, 0.92),  # half width of the body below the armpits
    "chest": (0.61, 0.71),  # half width of the rib cage
    "fat": (0.86, 1.12),  # thickness of soft tissue, 1 on average
    "apex": (-0.74, -0.66),  # top of the lungs
    "base": (0.36, 0.50),  # top of the right dome of the diaphragm
    "dome": (0.02, 0.06),  # distance of the left dome below it
    "heart": (0.31, 0.41),  # half length of the heart shadow
    "heart_tilt": (0.35, 0.75),  # of its long axis, radians below the horizontal
    "mediastinum": (0.10, 0.15),  # half width above the heart
    "thymus": (-0.14, 0.10),  # protrusion of its sail, if positive
    "knob": (0.5, 1.0),  # aortic knob
    "ribs": (0.132, 0.152),  # from one rib to the next
    "rib_start": (-0.72, -0.64),  # height of the first rib at the spine
    "rib_drop": (0.20, 0.34),  # fall of a posterior rib from spine to side
    "bone": (0.75, 1.2),  # mineral content, 1 on average
    "vertebrae": (0.100, 0.118),  # from one vertebra to the next
    "clavicle": (-0.60, -0.50),  # height of the inner end
    "clavicle_rise": (0.04, 0.18),  # to the outer end
    "vessels": (0.55, 1.45),  # prominence of the vascular markings, 1 on average
    "hila": (0.4, 1.6),  # prominence of the hila, 1 on average
}
HILA = np.array([[-0.19, -0.04], [0.21, -0.08]])


def habitus(rng: np.random.Generator) -> SimpleNamespace:
    """Draw the build of a patient: a value for each name in `HABITUS`."""
    return SimpleNamespace(**{name: float(rng.uniform(*ends)) for name, ends in HABITUS.items()})


def step(distance: np.ndarray, soft: float) -> np.ndarray:
    """Return 0 where ``distance`` is below ``-soft``, 1 above ``soft``, smooth between."""
    t = distance * (0.5 / soft)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)


def radius(x, y, *, at: tuple, axes: tuple, tilt: float = 0.0) -> np.ndarray:
    """Return the elliptic radius, 1 on the ellipse with half ``axes`` around ``at``."""
    c, s, dx, dy = math.cos(tilt), math.sin(tilt), x - float(at[0]), y - float(at[1])
    wide, tall = float(axes[0]), float(axes[1])
    return np.sqrt(((c * dx + s * dy) / wide) ** 2 + ((c * dy - s * dx) / tall) ** 2)


def capsule(x, y, *, start: tuple, end: tuple) -> np.ndarray:
    """Return the distance of each point from the segment ``start`` to ``end``."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - t * dx, y - start[1] - t * dy)


def lungs(x: np.ndarray, y: np.ndarray, build: SimpleNamespace) -> np.ndarray:
    """Return the aerated share of each ray, 0 to 1: the lung fields without the heart.

    Parameters
    ----------
    x, y : ndarray of float32, shape (size, size)
        Anatomical coordinates of the pixels.
    build : SimpleNamespace
        From `habitus`.

    Returns
    -------
    ndarray of float32, shape (size, size)
        Values above one half are the lung fields as a radiologist outlines them.
    """
    side, left = np.abs(x), (x > 0).astype(x.dtype)
    floor = build.base + build.dome * left + 1.1 * (side - 0.29) ** 2
    roof = build.apex + 3.0 * (side - 0.30) ** 2
    inner = build.mediastinum + 0.02 * step(-0.35 - y, 0.3)
    sail = (0.7 + 0.3 * left) * max(build.thymus, 0) * step(0.2 - np.abs(y + 0.36), 0.14)
    field = step(_cage(y, build) - side, 0.018) * step(floor - y, 0.018) * step(y - roof, 0.03)
    return field * step(side - inner - sail, 0.02) * (1 - heart(x, y, build))


def heart(x: np.ndarray, y: np.ndarray, build: SimpleNamespace) -> np.ndarray:
    """Return the heart shadow and great vessels, 0 to 1: apex to the patient's left."""
    low = build.base - 0.15
    ventricles = radius(
        x, y, at=(0.12, low), axes=(build.heart, 0.70 * build.heart), tilt=build.heart_tilt
    )
    atrium = radius(x, y, at=(-0.06, low - 0.05), axes=(0.14, 0.25))
    outflow = radius(x, y, at=(0.08, low - 0.22), axes=(0.15, 0.24), tilt=-0.35)
    knob = radius(x, y, at=(0.10, -0.30), axes=(0.08 * build.knob, 0.09))
    free = 1 - step(1 - ventricles, 0.07)
    for part, soft in ((atrium, 0.12), (outflow, 0.14), (knob, 0.25)):
        free = free * (1 - step(1 - part, soft))
    return 1 - free


def tissue(x: np.ndarray, y: np.ndarray, build: SimpleNamespace, arm: float) -> np.ndarray:
    """Return the attenuation of trunk, neck, shoulders and arms, without the lungs' air.

    ``arm`` is the angle of the arms below the horizontal in radians.
    """
    side = np.abs(x)
    slope = step(y + 0.74, 0.17)
    width = 0.21 + (build.trunk + 0.02 - 0.21) * slope + 0.9 * np.maximum(-0.93 - y, 0)
    trunk = np.sqrt(np.maximum(1 - (side / width) ** 2, 0)) * (0.84 + 0.20 * step(y - 0.42, 0.2))
    reach = capsule(side, y, **_arm(build, arm)) / 0.19
    limb = 0.62 * np.sqrt(np.maximum(1 - reach**2, 0))
    airway = step(0.036 - side, 0.02) * step(-0.26 - y, 0.05)
    for end in ((-0.15, -0.08), (0.17, -0.11)):
        tube = step(0.024 - capsule(x, y, start=(0, -0.28), end=end), 0.018)
        airway = np.maximum(airway, 0.8 * tube)
    return build.fat * (np.maximum(trunk, limb) + 0.25 * np.minimum(trunk, limb)) - 0.22 * airway


def bones(x: np.ndarray, y: np.ndarray, build: SimpleNamespace, arm: float) -> np.ndarray:
    """Return the attenuation of ribs, spine, clavicles, shoulder blades and humeri."""
    side = np.abs(x)
    edge = _cage(y, build) + 0.02
    out = np.clip(side / np.maximum(edge, 0.05), 0, 1.2)
    inside, bend = step(edge - side, 0.02), np.square(out * out)
    phase = (y - build.rib_start) / build.ribs
    fall = build.rib_drop / build.ribs
    behind = phase - fall * (0.25 * out + 0.75 * bend)
    ahead = phase - fall * (1.0 + 1.5 * (1 - out)) + 0.15
    ribs = _rib(behind, 10.5) * step(side - 0.05, 0.02) * (0.75 + 0.5 * bend)
    ribs = ribs + 0.55 * _rib(ahead, 8.5) * step(out - 0.55, 0.15)

    beat = np.cos((2 * np.pi / build.vertebrae) * (y + 0.02 * side))
    column = step(0.076 + 0.008 * beat - side, 0.02)
    upper, lower = np.square(np.maximum(beat, 0)), np.square(np.maximum(-beat, 0))
    pedicles = np.exp(-(((side - 0.045) / 0.014) ** 2)) * upper
    processes = step(0.12 - side, 0.02) * np.square(upper)
    spinous = np.exp(-((x / 0.012) ** 2)) * lower
    spine = column * (0.09 + 0.09 * step(beat + 0.55, 0.45)) + 0.09 * pedicles
    spine = spine + 0.05 * processes + 0.06 * spinous

    along = (side - 0.06) / 0.62
    line = build.clavicle - build.clavicle_rise * along - 0.035 * np.sin(2 * np.pi * along)
    gap = np.abs(y - line) / (0.031 + 0.016 * np.abs(along - 0.5))
    clavicle = _tube(gap) * step(along, 0.03) * step(1 - along, 0.03)

    limb = _arm(build, arm)
    humerus = _tube(capsule(side, y, **limb) / 0.055)
    head = step(1 - radius(side, y, at=limb["start"], axes=(0.085, 0.09)), 0.15)
    blade = np.minimum(y + 0.64 - 0.1 * side, 0.03 - y + 1.9 * (0.62 - side))
    blade = np.minimum(blade, side - 0.56 - 0.12 * (y + 0.6))
    blade = step(blade, 0.02) * (0.7 + 0.8 * step(0.03 - blade, 0.02))
    limbs = 0.24 * np.maximum(humerus, head) + 0.05 * blade
    return build.bone * (0.13 * ribs * inside + spine + 0.19 * clavicle + limbs)


def _cage(y: np.ndarray, build: SimpleNamespace) -> np.ndarray:
    """Return the inner half width of the rib cage at each height."""
    t = np.clip((y - build.apex + 0.08) / (build.base + 0.15 - build.apex), 0, 1)
    return build.chest * (1 - (1 - t) ** 2.3) ** 0.5


def _arm(build: SimpleNamespace, angle: float) -> dict[str, tuple]:
    """Return the ends of the upper arm on the viewer's right."""
    start = (build.trunk - 0.02, -0.56)
    return {
        "start": start,
        "end": (start[0] + 0.8 * math.cos(angle), start[1] + 0.8 * math.sin(angle)),
    }


def _rib(phase: np.ndarray, count: float) -> np.ndarray:
    """Draw a row of ribs, one for each unit of phase, with brighter cortical edges."""
    bar = step(np.cos(2 * np.pi * phase) - 0.30, 0.35)
    bar = bar * (1 + 1.4 * bar * (1 - bar) * 2 - 0.25 * bar)
    return bar * step(phase + 0.4, 0.1) * step(count - phase, 0.1)


def _tube(gap: np.ndarray) -> np.ndarray:
    """Draw a long bone: 1 inside ``gap`` = 1, a little brighter at the cortex."""
    inside = step(1 - gap, 0.25)
    return inside * (0.75 + 0.45 * step(gap - 0.55, 0.3))
