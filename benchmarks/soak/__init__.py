"""`python -m benchmarks.soak`: seeded faults over tiny runs, which must end as if nothing had been.

The runs, the commands and the S3 server are those of the tests.
"""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "ranks")]
