"""What a rank's step of the full model moves through memory beside its products: a bound."""

from __future__ import annotations

import torch
from benchmarks.traffic import Traffic, step_traffic

from arlow_trainer.config import load_run


def test_bytes_are_what_each_kernel_reads_and_writes() -> None:
    wide, row = torch.ones(4, 8, device="meta"), torch.ones(8, device="meta")
    out = torch.empty(4, 8, device="meta", dtype=torch.float16)
    with Traffic() as traffic:
        sum_ = wide + row.expand(4, 8)
        torch.mul(wide, row, out=out)
        out.view(8, 4).copy_(wide.view(8, 4))
        wide @ wide.T
        sum_.add_(wide)
    # In float32 and float16; the row counts once, what is written alone once.
    assert traffic.bytes == {
        "add": 4 * (32 + 8 + 32),
        "mul": 4 * (32 + 8) + 2 * 32,
        "copy_": 4 * 32 + 2 * 32,
        "add_": 4 * 3 * 32,
    }
    assert traffic.launches == {"add": 1, "mul": 1, "copy_": 1, "mm": 1, "add_": 1}


def test_a_step_of_the_full_model() -> None:
    """Before its passes were joined: 150.3 GB in 5,603 kernels."""
    traffic = step_traffic(load_run("arlow-vision-3072").spec.training)
    assert sum(traffic.bytes.values()) < 80e9, traffic.bytes.most_common(12)
    assert traffic.launches.total() < 5_500
    assert not {"roll", "cat", "clone"} & {k for k, v in traffic.launches.items() if v > 8}
    assert traffic.launches["_to_copy"] < 20
