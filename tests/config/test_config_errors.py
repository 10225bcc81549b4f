"""The tree of errors in the docstring, and their exit codes."""

from __future__ import annotations

import re

from arlow_trainer.config import errors
from arlow_trainer.config.errors import ArlowError


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^( *)[*-] (\w+) +(\d+)  \w", errors.__doc__, flags=re.MULTILINE)
    defined = [
        ("  ", kind.__name__, str(int(kind.exit_code)))
        for kind in ArlowError.__subclasses__()
        if kind.__module__ == errors.__name__
    ]
    assert drawn == [("", "ArlowError", "70"), *defined]
