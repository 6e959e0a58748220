"""The controls and answers of ``notebooks/explore.ipynb``, as Jupyter widgets (ipywidgets 7 or 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ipywidgets as widgets
import jinja2
import numpy as np

from cxr_helpers.anomaly import likeness
from cxr_helpers.evaluation import tables
from cxr_helpers.explore.opening import STAGES
from cxr_helpers.explore.session import MAPS, Session, changed
from cxr_helpers.figures import xrays
from cxr_helpers.phantoms import rendering
from cxr_helpers.pipeline import standalone
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import STORE
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system.errors import Refused

SIDE, SMALL = 288, 112  # pixels of the image and of a neighbour
CONTROLS, ANSWERED = 296, 334  # pixels: widths of the columns beside the image
NEIGHBOURS = 5
AS_DRAWN, NO_MAP, EVERY = "as drawn", "no map", "all"
REDRAWING = (
    "lesion",
    "severity",
    "lesion_contrast",
    "marker",
)  # controls that draw a phantom again
ENVIRONMENT = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
STYLE = """<style>
.cxr-answers, .cxr-confusion { font-size: 11px; line-height: 1.35; }
.cxr-answers meter { width: 44px; }
.cxr-note { line-height: 1.35; }
</style>"""
NOTICE = ENVIRONMENT.from_string(
    "<b>Not for clinical use.</b> The networks of the run {{ run }}"
    "{% if synthetic %}, trained on synthetic phantoms{% endif %}."
    "{% if at_chance %} On the test images, {{ at_chance | join(', ') }} "
    "{{ 'is' if at_chance | length == 1 else 'are' }} not shown to be better than chance: "
    "{{ 'its' if at_chance | length == 1 else 'their' }} answers say little.{% endif %}"
)
ANSWERS = ENVIRONMENT.from_string("""
<table class="cxr-answers"><caption>Probability of pneumonia</caption>
<tr><th>network</th><th>probability</th>{% if changed %}<th>change</th>{% endif %}<th>threshold</th><th>prediction</th></tr>
{% for name, probability, unchanged, threshold, seen in rows %}
<tr><td>{{ name }}{% if seen %} *{% endif %}</td><td><meter min="0" max="1" value="{{ '%.4f' % probability }}"></meter>
{{ "%.3f" % probability }}</td>{% if changed %}<td>{{ "%+.3f" % (probability - unchanged) }}</td>{% endif %}<td>{{ "%.3f" % threshold }}</td>
<td>{{ "pneumonia" if probability >= threshold else "normal" }}</td></tr>
{% endfor %}
</table>
<div class="cxr-note">{% if rows | map("last") | select | list %}* trained on this image<br>{% endif %}Anomaly score: {{ "%.2f" % anomaly }} ({{ "%.2f" % limit }} is exceeded by {{ "%g" % rare }}%
of the training images with pneumonia){% if differences %}<br><b>Unlike the training images in {{ differences }}: do not trust these
probabilities.</b>{% endif %}</div>
""")
CONFUSION = ENVIRONMENT.from_string("""
<table class="cxr-confusion"><caption>{{ n }} test images, {{ name }}, threshold
{{ "%.2f" % threshold }}</caption>
<tr><td></td><th>predicted normal</th><th>predicted pneumonia</th></tr>
{% for label, row in (("normal", counts[0]), ("pneumonia", counts[1])) %}
<tr><th>{{ label }}</th><td>{{ row[0] }}</td><td>{{ row[1] }}</td></tr>
{% endfor %}
</table>
<div class="cxr-note">
{% for metric, text in metrics %}{{ metric }} {{ text }}{% if not loop.last %}<br>{% endif %}{% endfor %}
</div>
""")


def show(run_dir: str | Path) -> widgets.Widget:
    """Return the panel of a run; where the run is not finished, a quick run is made first.

    Parameters
    ----------
    run_dir : path
        Folder of the run.

    Raises
    ------
    Refused
        If the run is in progress, a stage is older than one that it reads, or the quick run cannot
        be made.
    """
    run = Run(Path(run_dir).resolve())
    if run.owner is not None:
        raise Refused(5, f"{run.name} is in progress ({run.owner}): wait until it is finished")
    if missing := [stage for stage in STAGES if not run.is_usable(stage)]:
        run = standalone.quick_run(run, STAGES, missing=missing)
    for stage in STAGES:
        if newer := run.newer_input(stage):
            raise Refused(2, f"{stage} of {run.name} is older than its {newer}: run it again first")
    return Panel(Session(run, store=Store(run.folder.parent / STORE))).widget


def uploaded(value: object) -> tuple[str, bytes] | None:
    """Return name and content of the last file of a ``FileUpload``, of ipywidgets 7 or 8."""
    files = list(value.values()) if isinstance(value, Mapping) else list(value)
    if not files:
        return None
    name = files[-1].get("name") or files[-1]["metadata"]["name"]
    return name, bytes(files[-1]["content"])


class Panel:
    """Widgets that show what a session answers.

    Attributes
    ----------
    widget : ipywidgets.Widget
        All of them, to be displayed.
    controls : dict of str to Widget
        What a user changes.
    outputs : dict of str to Widget
        What changes then.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        splits = list(dict.fromkeys(session.index["split"]))[::-1]  # test first
        classes = [EVERY, *dict.fromkeys(session.index["class_name"])]
        self.controls = {
            "split": widgets.Dropdown(options=splits, description="images"),
            "class_name": widgets.Dropdown(options=classes, description="class"),
            "number": widgets.IntSlider(min=0, max=0, description="number"),
            "misclassified": widgets.Button(description="next misclassified"),
            "upload": widgets.FileUpload(accept=".png,.jpg,.jpeg", multiple=False),
            "border": _share("border", high=0.45),
            "rows": _range("erase rows"),
            "columns": _range("columns"),
            "lesion": widgets.Dropdown(
                options=[AS_DRAWN, *rendering.SHARES], description="lesion of"
            ),
            "severity": _share("severity"),
            "lesion_contrast": _share("contrast", high=3.0),
            "marker": _share("marker"),
            "reset": widgets.Button(description="undo changes"),
            "back": widgets.Button(description="back to the run", disabled=True),
            "network": widgets.Dropdown(options=list(session.networks), description="network"),
            "map": widgets.Dropdown(options=[NO_MAP, *MAPS], description="map"),
            "threshold": _share("threshold of the matrix", value=0.5),
        }
        self.outputs = {
            "what": widgets.HTML(),
            "fault": widgets.HTML(),
            "image": widgets.Image(format="png", width=SIDE, height=SIDE),
            "map_label": widgets.HTML(),
            "answers": widgets.HTML(),
            "confusion": widgets.HTML(),
            "neighbours": widgets.HTML(),
        }
        self._pictures = [
            widgets.Image(format="png", width=SMALL, height=SMALL) for _ in range(NEIGHBOURS)
        ]
        self._labels = [widgets.HTML() for _ in range(NEIGHBOURS)]
        self._quiet = False
        self._upload: np.ndarray | None = None
        self._changes: dict[str, object] = {}  # of the phantom
        self._original: dict[str, object] = {}  # the same controls for the phantom as it is
        self._image: np.ndarray | None = None
        self._is_changed = False
        self._unchanged: dict[str, float] = {}  # probabilities before all changes
        self._observe()
        self._select_rows()
        self.widget = self._arranged()

    def _observe(self) -> None:
        """Connect each control with what depends on it."""
        reactions = {
            "split": self._select_rows,
            "class_name": self._select_rows,
            "number": self._select_image,
            "upload": self._receive,
            "network": self._show_network,
            "map": self._show_map,
            "threshold": self._show_confusion,
        }
        reactions |= dict.fromkeys(("border", "rows", "columns"), self._show_all)
        for name, reaction in reactions.items():
            self.controls[name].observe(self._reaction(reaction), "value")
        for name in REDRAWING:
            self.controls[name].observe(self._redraw, "value")
        self.controls["misclassified"].on_click(lambda _: self._show_next_misclassified())
        self.controls["reset"].on_click(lambda _: self._undo())
        self.controls["back"].on_click(lambda _: self._select_image())

    def _reaction(self, function):
        """Return what a widget calls: the function, unless the panel itself sets the widget."""
        return lambda _: None if self._quiet else function()

    @contextmanager
    def _set_quietly(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    @property
    def _rows(self) -> np.ndarray:
        """Positions of the images of the chosen split and class among all images of the run."""
        class_name = self.controls["class_name"].value
        return self.session.rows(
            self.controls["split"].value, None if class_name == EVERY else class_name
        )

    @property
    def _row(self) -> int:
        """Position of the selected image among all images of the run."""
        return int(self._rows[self.controls["number"].value])

    def _select_rows(self) -> None:
        """Show the first image of the chosen split and class; where there is none, of the split."""
        with self._set_quietly():
            fault = ""
            if not len(self._rows):
                fault = f"The split {self.controls['split'].value} has no {self.controls['class_name'].value} image."
                self.controls["class_name"].value = EVERY
            self.controls["number"].value = 0
            self.controls["number"].max = len(self._rows) - 1
        self._select_image()
        self.outputs["fault"].value = _escaped(fault)

    def _show_next_misclassified(self) -> None:
        """Show the next image that the chosen network misclassifies at the threshold of the matrix."""
        name, threshold = self.controls["network"].value, self.controls["threshold"].value
        rows, number = self._rows, self.controls["number"].value
        wrong = np.isin(rows, self.session.misclassified(name, threshold, rows))
        if not wrong.any():
            fault = f"At {threshold:.2f}, none of these images is misclassified by {name}."
            self.outputs["fault"].value = _escaped(fault)
            return
        further = (number + 1 + np.arange(len(rows))) % len(rows)  # and from the start again
        with self._set_quietly():
            self.controls["number"].value = int(further[wrong[further]][0])
        self._select_image()

    def _select_image(self) -> None:
        """Show the selected image as it is."""
        self._upload = None
        self._forget_changes()
        self._show_all()

    def _undo(self) -> None:
        """Show the image, selected or uploaded, without its changes."""
        self._forget_changes()
        self._show_all()

    def _forget_changes(self) -> None:
        facts = self.session.index.iloc[self._row]
        with self._set_quietly():
            for name, value in (
                ("border", 0.0),
                ("rows", (0.0, 0.0)),
                ("columns", (0.0, 0.0)),
                ("lesion", AS_DRAWN),
                # in steps of the sliders: a browser would send the rounded values back as changes
                (
                    "severity",
                    round(float(facts.get("severity", 0.0) or 0.0), 2),
                ),  # empty of real images
                ("marker", round(self.session.marker_height(self._row), 2)),
            ):
                self.controls[name].value = value
            if self.session.drawn:
                self.controls["lesion_contrast"].value = round(self.session.lesion_contrast, 2)
            self._changes, self._unchanged = {}, {}
            self._original = {name: self.controls[name].value for name in REDRAWING}

    def _receive(self) -> None:
        """Show an uploaded image."""
        file = uploaded(self.controls["upload"].value)
        if file is None:
            return
        name, content = file
        with self._set_quietly():  # so that the same file can be uploaded again
            self.controls["upload"].value = type(self.controls["upload"].value)()
        try:
            image = self.session.decode(content)
        except OSError:
            self.outputs["fault"].value = _escaped(f"{name} is not a readable JPEG or PNG.")
            return
        self._forget_changes()
        self._upload = image
        self._show_all()

    def _redraw(self, change: Mapping) -> None:
        """Draw the phantom again with what was changed since it was selected."""
        if self._quiet or self._upload is not None:
            return
        name = next(n for n, control in self.controls.items() if control is change["owner"])
        new, drawn = change["new"], self._original[name]
        self._changes[name] = new
        # from a browser, 1 comes back as 0.9999999999999999
        if abs(new - drawn) < 1e-6 if isinstance(new, float) else new == drawn:
            del self._changes[name]
        if self.controls["lesion"].value == AS_DRAWN:
            self._changes.pop("lesion", None)
        else:  # as severe as the slider says, and not as another lesion would be drawn
            self._changes["severity"] = self.controls["severity"].value
        self._show_all()

    def _show_all(self) -> None:
        """Show the image with its changes, and every answer."""
        values = {name: self.controls[name].value for name in ("border", "rows", "columns")}
        for name in REDRAWING:  # an uploaded image cannot be drawn again
            self.controls[name].disabled = self._upload is not None
        self.controls["back"].disabled = self._upload is None
        if self._upload is not None:
            base, what = self._upload, "uploaded image"
        else:
            facts, row = self.session.index.iloc[self._row], self._row
            what = f"{facts['split']}: {facts['class_name']}, {facts['file']}"
            base = self.session.images[row]
            if self._changes:
                base = self.session.redraw(row, **self._changes)
                what += "; drawn again, with changes"
        self.outputs["what"].value = _escaped(what)
        self.outputs["fault"].value = ""
        self._image = changed(base, **values)
        self._is_changed = bool(self._changes) or not np.array_equal(self._image, base)
        if self._is_changed and not self._unchanged:
            image = self.session.images[self._row] if self._upload is None else self._upload
            networks = self.session.networks.items()
            self._unchanged = {name: network.answer(image)[0] for name, network in networks}
        self._show_network()

    def _show_network(self) -> None:
        """Show what depends on the image or the network."""
        rows, chosen = [], self.controls["network"].value
        row = self._row if self._upload is None else None
        seen = [] if row is None else self.session.trained_on(row)
        own = np.flatnonzero(self.session.train_rows == row)
        for name, network in self.session.networks.items():
            probability, vector = network.answer(self._image)
            thresholds = network.classifier.thresholds.items()
            before = self._unchanged.get(name)
            rows += [
                (label, probability, before, value, name in seen) for label, value in thresholds
            ]
            if name == chosen:
                itself = own[0] if len(own) else None
                nearest = network.neighbours(vector, NEIGHBOURS, without=itself)
        anomaly, differences = self.session.unlike(self._image)
        self.outputs["answers"].value = ANSWERS.render(
            rows=rows,
            changed=self._is_changed,
            anomaly=anomaly,
            limit=self.session.likeness.anomaly_limit,
            rare=100 - likeness.ORDINARY,
            differences=differences,
        )
        self._show_neighbours(nearest)
        self._show_map()
        self._show_confusion()

    def _show_neighbours(self, nearest: np.ndarray) -> None:
        self.outputs["neighbours"].value = _escaped(
            f"Nearest training images in the embedding of {self.controls['network'].value}"
        )
        rows = self.session.train_rows[nearest]
        for row, picture, label in zip(rows, self._pictures, self._labels, strict=False):
            picture.value = xrays.png(self.session.images[row], side=SMALL)
            label.value = _escaped(self.session.index["class_name"][row])

    def _show_map(self) -> None:
        network = self.session.networks[self.controls["network"].value]
        method = self.controls["map"].value
        if method == NO_MAP:
            self.outputs["image"].value = xrays.png(self._image, side=SIDE)
            self.outputs["map_label"].value = ""
            return
        heat = network.heat(self._image, method)
        self.outputs["image"].value = xrays.png(
            self._image, side=SIDE, heat=heat.values, signed=heat.signed
        )
        low, high = float(heat.values.min()), float(heat.values.max())
        colours = "red raises, blue lowers" if heat.signed else "bright is high"
        label = f"{heat.label}: {low:.2g} to {high:.2g} ({colours})"
        self.outputs["map_label"].value = f'<div class="cxr-note">{_escaped(label)}</div>'

    def _show_confusion(self) -> None:
        name, threshold = self.controls["network"].value, self.controls["threshold"].value
        found = self.session.confusion(name, threshold)
        self.outputs["confusion"].value = CONFUSION.render(
            name=name,
            threshold=threshold,
            n=int(found.counts.sum()),
            counts=found.counts.tolist(),
            metrics=[(m, tables.with_interval(*v)) for m, v in found.metrics.items()],
        )

    def _arranged(self) -> widgets.Widget:
        """Return all widgets in their places."""
        of, out = self.controls, self.outputs
        names = [
            "split",
            "class_name",
            "number",
            "misclassified",
            "upload",
            "border",
            "rows",
            "columns",
        ]
        if self.session.drawn:
            names += REDRAWING
        notice = NOTICE.render(
            run=self.session.run.name,
            synthetic=self.session.synthetic,
            at_chance=self.session.at_chance(),
        )
        wrapped = widgets.Layout(flex_flow="row wrap")
        pairs = zip(self._pictures, self._labels, strict=True)
        near = [widgets.VBox([picture, label]) for picture, label in pairs]
        columns = [
            widgets.VBox([of[name] for name in (*names, "reset", "back")], layout=_wide(CONTROLS)),
            widgets.VBox(
                [of[name] for name in ("network", "map")]
                + [out[name] for name in ("what", "fault", "image", "map_label")],
                layout=_wide(SIDE + 8),
            ),
            widgets.VBox(
                [out["answers"], of["threshold"], out["confusion"]], layout=_wide(ANSWERED)
            ),
        ]
        return widgets.VBox(
            [
                widgets.HTML(STYLE + notice),
                widgets.HBox(columns, layout=wrapped),
                out["neighbours"],
                widgets.HBox(near, layout=wrapped),
            ]
        )


def _share(name: str, *, high: float = 1.0, value: float = 0.0) -> widgets.FloatSlider:
    slider = widgets.FloatSlider(value=value, min=0, max=high, step=0.01, description=name)
    long = len(name) > 12  # more than ipywidgets shows of a description
    slider.style.description_width = "initial" if long else "72px"
    return slider


def _range(name: str) -> widgets.FloatRangeSlider:
    slider = widgets.FloatRangeSlider(value=(0, 0), min=0, max=1, step=0.01, description=name)
    slider.style.description_width = "72px"
    slider.layout.width = f"{CONTROLS - 4}px"  # else its readout is cut off
    return slider


def _wide(pixels: int) -> widgets.Layout:
    """Return the layout of a column that keeps its width, whatever is written in it."""
    return widgets.Layout(width=f"{pixels}px", flex="0 0 auto", overflow="hidden")


def _escaped(text: str) -> str:
    return str(jinja2.utils.markupsafe.escape(text))
