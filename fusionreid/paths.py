"""Where things lie: the repository, its notebooks and figures, and what is built or run.

The paths are absolute, so that a notebook finds the same files in JupyterLab (which starts it in
its own folder), under papermill and in the tests. Variables of the environment move them, for a
cluster whose scratch space lies elsewhere: `FUSIONREID_ROOT` all of them, `FUSIONREID_DATA` the
data sets, `FUSIONREID_RUNS` the runs, `FUSIONREID_CACHE` the decoded images, and
`FUSIONREID_RECORDED` the recorded runs, which are committed beside the paper's numbers.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()


# The checkout that this package lies in; the current folder where the package is installed alone.
_CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else Path.cwd()
ROOT = _folder("FUSIONREID_ROOT", _CHECKOUT)
DATA = _folder("FUSIONREID_DATA", ROOT / "data")
RUNS = _folder("FUSIONREID_RUNS", ROOT / "runs")
RECORDED = _folder("FUSIONREID_RECORDED", PACKAGE / "paper")
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
WEIGHTS = PACKAGE / "weights"  # small ones of our own making, in the package


def cache(data_root: str | Path | None = None) -> Path:
    """The folder of decoded images: `FUSIONREID_CACHE`, or `cache/` beside the data sets."""
    return _folder("FUSIONREID_CACHE", Path(data_root or DATA) / "cache")


def figures(profile: str, dataset: str = "synthetic") -> Path:
    """The folder that notebooks draw into, made if missing.

    `figures/` holds what is committed: the demo on synthetic data, and nothing else. Every other
    profile or data set has a folder of its own under `runs/figures/`.
    """
    if (profile, dataset) == ("demo", "synthetic"):
        folder = FIGURES
    else:
        folder = RUNS / "figures" / f"{profile}-{dataset}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
