"""Single cells of the notebooks, run on planted data in an instant."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import keras

from cxr_helpers.figures.captions import Captions
from cxr_helpers.pipeline.stages import Stage

FOLDER = Path(__file__).parent.parent / "notebooks"


def run(notebook: str, /, *ids: str, **planted) -> dict:
    """Run the imports of a notebook, then the cells ``ids``, on planted names; return all names.

    A planted ``figure`` or ``table`` receives what is shown, its id and its rendered caption.
    """
    source = {cell["id"]: "".join(cell["source"]) for cell in _cells(notebook)}
    names: dict = {}
    exec(compile(source[f"{notebook[:2]}-04"], f"{notebook}, imports", "exec"), names)
    names |= planted
    show = Captions(FOLDER / "captions" / f"{notebook}.toml", names, synthetic=True)
    for name in ("figure", "table"):
        if name in planted:
            names[name] = _captioned(planted[name], show)
    names.setdefault("text", show.text)
    for cell in ids:
        _execute(source[cell], f"{notebook}, cell {cell}", names)
    return names


def play(notebook: str, run, folder: Path, /, *, until: str = "", **changed) -> dict:
    """Run all cells of a notebook on the earlier stages of a run; return all names.

    Parameters
    ----------
    notebook : str
    run : Run
        Whose parameters the notebook gets; it stays unchanged.
    folder : Path
        For the artifacts.
    until : str
        Id of the last cell; all by default.
    **changed
        Parameters with other values.
    """
    for stage in run.graph.upstream([notebook]):
        shutil.copytree(run.stage(stage), folder / "run" / "stages" / stage, dirs_exist_ok=True)
    parameters = run.manifest(notebook)["recipe"]["parameters"] | changed
    parameters |= {"run_dir": str(folder / "run"), "cache_dir": str(folder / "cache")}
    names: dict = {}
    policy = keras.mixed_precision.global_policy()  # a notebook sets that of its run
    try:
        for cell in _cells(notebook):
            tags, source = cell["metadata"].get("tags", []), "".join(cell["source"])
            if "setup" in tags or cell["cell_type"] != "code":
                continue
            _execute(source, f"{notebook}, cell {cell['id']}", names)
            if "parameters" in tags:
                unknown = set(changed) - set(names)
                assert not unknown, f"{notebook} has no parameter {unknown}"
                names |= {name: value for name, value in parameters.items() if name in names}
            if cell["id"] == until:
                break
    finally:
        keras.mixed_precision.set_global_policy(policy)
    return names


def _cells(notebook: str) -> list[dict]:
    return json.loads((FOLDER / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]


def _execute(source: str, place: str, names: dict) -> None:
    """Run a cell; one that declares an evaluation is a context outside of IPython."""
    declares = "radiographs.evaluation()" in source
    with names["radiographs"].evaluation() if declares else nullcontext():
        exec(compile(source, place, "exec"), names)


def _captioned(publish, show):
    """Return a planted function that also receives the caption, as ``publishing``'s do."""
    return lambda shown, id, **more: publish(shown, id=id, caption=show.render(id, "caption"))


class FakeStage:
    """Keeps artifacts in a folder and computes everything anew."""

    earlier = checkpoint = None
    rows = ()
    train = Stage.train

    def __init__(self, folder):
        self.folder, self.lines = folder, []
        self.log = self.lines.append

    def save(self, name, write, *args):
        write(self.folder / name, *args)

    def input(self, stage, name):
        return self.folder / name

    def earlier_names(self, pattern):
        return sorted(path.name for path in self.earlier.glob(pattern))

    def cached(self, function, *args, **kwargs):
        return function(*args, **kwargs)
