"""Runs a function in a forked process, for what a test must not do to its own process."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable

NOBODY = 65534


def in_fork(function: Callable[[], object], timeout_s: float = 60.0) -> str:
    """Result of `function` in a forked process, as text; fails when it raises or does not end."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send((True, str(function())))
        except BaseException:
            sender.send((False, traceback.format_exc()))

    process = context.Process(target=run)
    process.start()
    try:
        assert receiver.poll(timeout_s), "the forked process does not end"
        fine, text = receiver.recv()
        assert fine, text
        process.join(timeout_s)
        assert process.exitcode == 0, "the forked process does not exit"
    finally:
        if process.is_alive():
            process.kill()
            process.join()
    return text


def become_nobody() -> None:
    """Gives up root's right to write everywhere; other users have no such right anyway."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
