"""The benchmarks are scripts, which import each other by name; so do their tests."""

import sys

from fusionreid import paths

sys.path.insert(0, str(paths.ROOT / "benchmarks"))
