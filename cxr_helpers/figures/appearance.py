"""The style of all figures, which is set on import, and the colours of the classes.

A class keeps its colour in all notebooks (the colour-blind-safe palette of Okabe & Ito).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

STYLE = Path(__file__).with_name("report.mplstyle")
COLOURS = {
    "normal": "#0072B2",
    "pneumonia": "#D55E00",
    "bacterial": "#E69F00",
    "viral": "#CC79A7",
    "unknown subtype": "#999999",
}
plt.style.use(STYLE)
