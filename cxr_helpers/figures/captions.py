"""Captions and sentences of a notebook, in a file of their own beside it.

The file is TOML; captions, alternative texts and sentences in it are Jinja templates in which the
names of the notebook's variables stand for their values::

    [fig-roc]
    finding = '''The AUROC is {{ auroc | decimals }}.'''
    caption = '''ROC curve on the test images; n = {{ y_true | length }}.'''
    alt = '''A curve above the diagonal.'''

    [text]
    found = '''The accuracy is {{ accuracy | percent }}.'''

So the notebook shows what is computed and plotted, and no number is typed into prose. The finding of a
figure, where there is one, stands before its caption; lists of figures leave it out. An entry
``fig-map`` also serves the ids ``fig-map-normal`` and ``fig-map-pneumonia``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from cxr_helpers.figures import publishing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def _percent(share: float, digits: int = 1) -> str:
    return "not available" if math.isnan(share) else f"{share:.{digits}%}"


def _effect(change: float, digits: int = 2) -> str:
    written = f"{change:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return written.lstrip("+") if float(written.replace("\N{MINUS SIGN}", "-")) == 0 else written


def _outwards(low: float, high: float, digits: int) -> tuple[float, float]:
    """Return the interval of an effect, rounded so that it contains the rounded value."""
    unit = 10**digits
    return math.floor(round(unit * low, 6)) / unit, math.ceil(round(unit * high, 6)) / unit


def _bounds(low: float, high: float, digits: int = 2) -> str:
    if math.isnan(low):
        return "[not available]"
    return f"[{', '.join(_effect(bound, digits) for bound in _outwards(low, high, digits))}]"


def _excludes_zero(low: float, high: float, digits: int = 2) -> bool:
    """Return whether the interval excludes 0 as ``bounds`` writes it."""
    if math.isnan(low):
        return False
    low, high = _outwards(low, high, digits)
    return low > 0 or high < 0


NETWORKS = {
    "binary": "the binary network",
    "categorical": "the categorical network",
    "ours": "our network",
}


def _counted(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


# How numbers are written in prose: {{ share | percent }}, {{ share | percent(0) }}, {{ n | compact }}.
FILTERS: dict[str, Callable] = {
    "percent": _percent,
    "signed": lambda share: f"{100 * share:+z.1f}".replace("-", "\N{MINUS SIGN}"),
    "effect": _effect,
    "bounds": _bounds,
    "excludes_zero": _excludes_zero,
    "network": lambda name: NETWORKS.get(name, name),
    "p": lambda p: f"= {p:.2g}" if p >= 0.001 else "< 0.001",
    "counted": _counted,
    "decimals": lambda number: f"{number:.3f}",
    "points": lambda share: f"{100 * share:.1f}",
    "compact": lambda number: f"{number:g}",
    "thousands": lambda number: f"{number:,}",
}


def environment(**options: object) -> jinja2.Environment:
    """Return the Jinja environment of all prose.

    An unknown name is an error, nothing is escaped, and a template reaches no inner attributes.
    """
    made = SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False, **options)
    made.filters |= FILTERS
    return made


class Captions:
    """Displays figures, tables and sentences with what the file says of them.

    Parameters
    ----------
    path : Path
        The TOML file.
    names : mapping of str to object
        The variables of the notebook, ``globals()`` there; read when something is displayed.
    synthetic : bool
        Whether the images are phantoms, which every caption then states.

    Raises
    ------
    ValueError
        If the file is not valid TOML.
    """

    def __init__(self, path: Path, names: Mapping[str, object], *, synthetic: bool) -> None:
        self.path, self.names, self.synthetic = path, names, synthetic
        try:
            self.entries = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path.name}: {error}") from error
        self._environment = environment()

    def figure(self, fig: Figure, id: str, *, synthetic: bool | None = None) -> None:
        """Display a figure with its caption and alternative text, see ``publishing.figure``.

        ``synthetic`` replaces that of the notebook, for a figure of other images.
        """
        publishing.figure(
            fig,
            id=id,
            finding=self.render(id, "finding") if "finding" in self._entry(id) else "",
            caption=self.render(id, "caption"),
            alt=self.render(id, "alt"),
            synthetic=self.synthetic if synthetic is None else synthetic,
        )

    def table(
        self,
        frame: pd.DataFrame,
        id: str,
        *,
        formats: Mapping[str, str] | None = None,
        synthetic: bool | None = None,
    ) -> None:
        """Display a data frame with its caption, see ``publishing.table``.

        ``synthetic`` replaces that of the notebook, for a table about other images.
        """
        publishing.table(
            frame,
            id=id,
            caption=self.render(id, "caption"),
            synthetic=self.synthetic if synthetic is None else synthetic,
            formats=formats,
        )

    def text(self, name: str) -> None:
        """Display a sentence of the section ``text``."""
        publishing.text(self.render("text", name))

    def render(self, id: str, part: str) -> str:
        """Return a text of the file in one line, with the values of the notebook's variables.

        Parameters
        ----------
        id : str
            A section, such as ``"fig-roc"`` or ``"text"``.
        part : str
            ``"finding"``, ``"caption"``, ``"alt"`` or the name of a sentence.

        Raises
        ------
        KeyError
            If the file has no such text.
        ValueError
            If the template is wrong, or names a variable that the notebook does not have.
        """
        entry = self._entry(id)
        if part not in entry:
            raise KeyError(f"{self.path.name} has no {part!r} of {id!r}")
        try:
            text = self._environment.from_string(entry[part]).render(self.names)
        except jinja2.TemplateError as error:
            raise ValueError(f"{self.path.name}, {id}, {part}: {error.message}") from error
        return " ".join(text.split())

    def _entry(self, id: str) -> Mapping[str, str]:
        return self.entries.get(id) or self.entries.get(id.rpartition("-")[0]) or {}
