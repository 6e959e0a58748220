"""One page over several runs: the test accuracy of each row of Table 1, run beside run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from cxr_helpers.system import files

TEMPLATE = Path(__file__).parent / "templates" / "overview.html.j2"
NOTHING = "–"


def write(
    table: pd.DataFrame,
    *,
    folder: Path,
    labels: Mapping[str, str],
    changed: Sequence[str],
    title: str,
    synthetic: Collection[str] = (),
) -> list[Path]:
    """Write ``overview.html`` and ``overview.csv``.

    Parameters
    ----------
    table : pandas.DataFrame
        Of ``grid.collect``: columns ``run``, ``data``, the changed parameters, ``row``, ``split``,
        ``metric``, ``value``, and with several seeds ``seeds_mean`` and ``seeds_sd``.
    folder : Path
        Beside the folders of the runs; created if it is missing.
    labels : mapping of str to str
        Names of the rows, in their order.
    changed : sequence of str
        The parameters in which the runs differ.
    title : str
        Of the page.
    synthetic : collection of str
        Names of the runs whose images are phantoms.

    Returns
    -------
    list of Path
        The page, then the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv = table.to_csv(index=False, lineterminator="\n")
    accuracy = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
    runs = table.drop_duplicates("run")[["run", "data", *changed]].to_dict("records")
    pages = {run["run"]: folder.parent / run["run"] / "report.html" for run in runs}
    reports = [name for name, page in pages.items() if page.exists()]
    rows = [
        (label, [_cell(accuracy, row, run["run"]) for run in runs])
        for row, label in labels.items()
        if (accuracy["row"] == row).any()
    ]
    page = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"), autoescape=True, undefined=jinja2.StrictUndefined
    ).render(
        title=title,
        runs=runs,
        reports=reports,
        changed=list(changed),
        rows=rows,
        seeds="seeds" in table,
        synthetic=[run["run"] for run in runs if run["run"] in synthetic],
    )
    return [
        files.write_text(folder / "overview.html", page),
        files.write_text(folder / "overview.csv", csv),
    ]


def _cell(accuracy: pd.DataFrame, row: str, run: str) -> str:
    """Return an accuracy as text: mean ± standard deviation where there are several seeds."""
    found = accuracy[(accuracy["row"] == row) & (accuracy["run"] == run)]
    if found.empty or pd.isna(found["value"].iloc[0]):
        return NOTHING
    line = found.iloc[0]
    if line.get("seeds", 1) > 1:
        return f"{line['seeds_mean']:.3f} ± {line['seeds_sd']:.3f}"
    return f"{line['value']:.3f}"
