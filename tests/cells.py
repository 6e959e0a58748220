"""Single cells of the notebooks, run on planted data in an instant."""

import json
from contextlib import nullcontext
from pathlib import Path

from cxr_helpers.figures.captions import Captions
from cxr_helpers.pipeline.stages import Stage

FOLDER = Path(__file__).parent.parent / "notebooks"


def run(notebook: str, /, *ids: str, **planted) -> dict:
    """Run the imports of a notebook, then the cells ``ids``, on planted names; return all names.

    A planted ``figure`` or ``table`` receives what is shown, its id and its rendered caption.
    """
    cells = json.loads((FOLDER / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = {cell["id"]: "".join(cell["source"]) for cell in cells}
    names: dict = {}
    exec(compile(source[f"{notebook[:2]}-04"], f"{notebook}, imports", "exec"), names)
    names |= planted
    show = Captions(FOLDER / "captions" / f"{notebook}.toml", names, synthetic=True)
    for name in ("figure", "table"):
        if name in planted:
            names[name] = _captioned(planted[name], show)
    names.setdefault("text", show.text)
    for cell in ids:
        declares = "radiographs.evaluation()" in source[cell]
        with planted["radiographs"].evaluation() if declares else nullcontext():
            exec(compile(source[cell], f"{notebook}, cell {cell}", "exec"), names)
    return names


def _captioned(publish, show):
    """Return a planted function that also receives the caption, as ``publishing``'s do."""
    return lambda shown, id, **more: publish(shown, id=id, caption=show.render(id, "caption"))


class FakeStage:
    """Keeps artifacts in a folder and computes everything anew."""

    earlier = checkpoint = None
    train = Stage.train

    def __init__(self, folder):
        self.folder, self.lines = folder, []
        self.log = self.lines.append

    def save(self, name, write, *args):
        write(self.folder / name, *args)

    def input(self, stage, name):
        return self.folder / name

    def cached(self, function, *args, **kwargs):
        return function(*args, **kwargs)
