"""The tree of errors in the docstring, and their exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from arlow_trainer.config import errors
from arlow_trainer.config.errors import ArlowError, ExitCode


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^( *)[*-] (\w+) +(\d+)  \w", errors.__doc__, flags=re.MULTILINE)
    assert drawn == list(branches(ArlowError, ""))


def branches(kind: type[ArlowError], indent: str) -> Iterator[tuple[str, str, str]]:
    yield indent, kind.__name__, str(int(kind.exit_code))
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from branches(each, f"{indent}  ")


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [code for _, _, code in branches(ArlowError, "")]
    assert len(set(codes)) == len(codes)


def test_every_exit_code_is_explained() -> None:
    assert all(code.cause and code.meaning for code in ExitCode)
    assert all(code.remedy for code in ExitCode if code is not ExitCode.FINISHED)
    assert ExitCode(73) is ExitCode.LEASE
