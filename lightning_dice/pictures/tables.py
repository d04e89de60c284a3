"""Tables on the terminal: a run's scores, and the voxels and weights of its classes."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

COLUMNS = {"dice": "Dice %", "jaccard": "Jaccard %", "hd95_mm": "HD95 mm", "surface_dice": "NSD 3 mm %"}
MEANS = {"avg": "AVG", "avg_without_background": "AVG organs", "max": "MAX", "min": "MIN"}


def scores_table(summary: dict[str, Any]) -> str:
    """A run's `summary.json` as text; a dash where a score is undefined in all cases."""
    if "classes" not in summary:
        return "no test cases, no table"
    rows = {**summary["classes"], **{title: summary[key] for key, title in MEANS.items()}}
    table = pd.DataFrame.from_dict(rows, orient="index")[[*COLUMNS, "cases"]].astype(float)
    table[[c for c in COLUMNS if c != "hd95_mm"]] *= 100
    formats = dict.fromkeys(COLUMNS.values(), "{:.1f}".format) | {"cases": "{:.0f}".format}
    return table.rename(columns=COLUMNS).to_string(formatters=formats, na_rep="–")


def classes_table(names: Sequence[str], voxels: Sequence[int], weights: Sequence[float] | None = None) -> str:
    """Voxels, their share and, if given, the weight of each class, as text."""
    table = pd.DataFrame({"voxels": voxels}, index=pd.Index(names, name="class"))
    table["share %"] = table["voxels"] / table["voxels"].sum() * 100
    formats = {"voxels": "{:,}".format, "share %": "{:.3f}".format}
    if weights is not None:
        table["weight"] = list(weights)
        formats["weight"] = "{:.3e}".format  # from 10⁻¹⁰ to 10³
    return table.to_string(formatters=formats)
