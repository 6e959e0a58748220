"""Tables on the terminal: what was done, Table 1, the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from rich.table import Table

from cxr_helpers.pipeline import currency
from cxr_helpers.pipeline.parameters import Parameter
from cxr_helpers.system import terminal

COLUMNS = ("Row", "Classes", "Published", "Accuracy", "AUROC", "Accuracy over seeds", "n")


def show_log(log: Iterable[tuple[str, str, float]], *, title: str) -> None:
    """Show what was done with each stage and the seconds it took."""
    table = Table(title=title, title_justify="left")
    for name in ("stage", "status", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for stage, status, seconds in log:
        table.add_row(stage, status, f"{seconds:.1f}" if seconds else "")
    terminal.console.print(table, markup=False)


def show_results(results: pd.DataFrame, *, title: str) -> None:
    """Show those columns of Table 1 that fit on a terminal."""
    table = Table(title=title, title_justify="left")
    shown = results[[name for name in COLUMNS if name in results]]
    for name in shown:
        layout = {"justify": "left", "ratio": 1} if name == "Row" else {"no_wrap": True}
        table.add_column(name, **({"justify": "right"} | layout))
    for line in shown.itertuples(index=False):
        cells = ["–" if pd.isna(v) else f"{v:.2f}" if isinstance(v, float) else v for v in line]
        table.add_row(*map(str, cells))
    terminal.console.print(table, markup=False)


def list_parameters(schema: Mapping[str, Mapping[str, Parameter]]) -> None:
    """Write the parameters of every stage to standard output: default, meaning, type, range."""
    lines = []
    for stage, parameters in schema.items():
        lines.append(stage)
        for parameter in parameters.values():
            if parameter.name not in currency.UNTRACKED:
                allowed = "" if parameter.range == "any" else f", {parameter.range}"
                setting = f"{parameter.name}={_as_setting(parameter.default)}"
                lines.append(f"  {setting:34}  {parameter.help} ({parameter.type}{allowed})")
    terminal.write_out(lines)


def _as_setting(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
