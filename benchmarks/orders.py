"""Do the paper's orders hold, seed after seed? Its statements on Tables II to V and Fig. 5, looked up in several seeds.

    python benchmarks/orders.py                  # demo profile; two cores: an hour, runs that are there are loaded

Writes results/orders.csv, a row per statement, case and metric, and results/orders_rows.csv, the accuracy of every
variant and feature. The mutual fusion is taken twice: as the paper's Eqs. 6 to 9 print it, M = MHCA(q, kv), and as the
released code's pre-norm block, which keeps the query, q + MHCA(LN(q), kv), and normalises before the FFN too. The
rest of the model and the training are the same.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from measure import RESULTS

from fusionreid import paths
from fusionreid.config import FEATURES, PROFILES, ModelConfig, Profile
from fusionreid.paper import claims, results
from fusionreid.paper.experiments import plan, run_all

AS_PRINTED = ("table2", "table3", "table4", "table5", "figure5")
AS_RELEASED = ("table2",)  # and what its models say on Table III, and on Fig. 5 at L = 2
COLUMNS = ["variant", "feature", "seed", "mAP", "rank-1", "fingerprint", "commit", "device", "version"]


@dataclass(frozen=True)
class ReleasedResidual(Profile):
    """A profile whose MFUs have the released code's residual; what has no MFU stays the same run."""

    def scale(self, config: ModelConfig) -> ModelConfig:
        scaled = super().scale(config)
        if scaled.fusion is None or "mfu" not in scaled.fusion.units:
            return scaled
        return replace(scaled, fusion=replace(scaled.fusion, mfu_residual="query"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="demo", choices=list(PROFILES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, help="at once (default: one a core, or one a GPU)")
    parser.add_argument("--load", action="store_true", help="train nothing: report on the runs that are there")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    plain = PROFILES[given.profile]
    released = ReleasedResidual(**vars(plain))
    orders, rows = [], []
    for mfu, profile, names in (("as printed", plain, AS_PRINTED), ("as released", released, AS_RELEASED)):
        options = dict(seeds=given.seeds)
        print(f"MFU {mfu}: {len(plan(names, profile, **options))} runs", flush=True)
        if not given.load:
            run_all(names, profile, processes=given.processes, **options)
        checked = claims.check(AS_PRINTED, profile, **options)
        orders.append(checked[checked["holds"] != "not run"].assign(mfu=mfu))
        print(claims.report(orders[-1]), flush=True)
        for name in names:
            measured = results.rows(name, profile, features=(*FEATURES, "all"), **options)
            rows.append(measured[COLUMNS].dropna().assign(mfu=mfu, experiment=name))
    rows = pd.concat(rows).assign(profile=plain.name)
    same = {key: " and ".join(sorted(rows[key].unique())) for key in ("commit", "device", "version")}
    write(rows, given.output / "orders_rows.csv", ["mfu", "profile", "experiment"])
    write(pd.concat(orders).assign(profile=plain.name, **same), given.output / "orders.csv", ["mfu", "profile"])


def write(table: pd.DataFrame, path: Path, first: list[str]) -> None:
    """Writes a table with some columns in front."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table[[*first, *(name for name in table if name not in first)]].to_csv(path, index=False, float_format="%.3f")
    print(f"{path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path}: {len(table)} rows")


if __name__ == "__main__":
    main()
