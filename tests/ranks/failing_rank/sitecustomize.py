"""Makes one rank of a run fail at a step, and every rank's group one that cannot be left.

Python imports this before anything else in a process with this folder on its PYTHONPATH.
"""

import os
import sys
import threading
import time


def _fail() -> None:
    with open(os.environ["TEST_FAILED_AT"], "w") as file:
        file.write(str(time.time()))
    how = os.environ["TEST_FAILURE"]
    if how == "raise":
        raise KeyError("a defect of the test's own")
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), 9)


def _patch() -> None:
    while not hasattr(sys.modules.get("arlow_trainer.run.train"), "train"):
        time.sleep(0.01)
    import torch.distributed as dist

    from arlow_trainer.engine import StepRunner

    # What NCCL does: it waits for every rank of the group.
    dist.destroy_process_group = lambda *_: time.sleep(3600)
    step = StepRunner.step

    def failing(self, number, micro_batches):
        if number == 6 and os.environ["RANK"] == os.environ["TEST_RANK"]:
            _fail()
        if number == 6 and os.environ.get("TEST_OTHERS") == "wait":
            time.sleep(3600)
        return step(self, number, micro_batches)

    StepRunner.step = failing


if "RANK" in os.environ and "arlow_trainer.run.rank" in " ".join(sys.orig_argv):
    threading.Thread(target=_patch, daemon=True).start()
