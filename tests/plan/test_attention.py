"""Which kernel attention takes, as a table."""

from __future__ import annotations

import pytest

from arlow_trainer.config import Precision, TrainingSection, load_run
from arlow_trainer.plan.attention import Kernel, attention_kernel, micro_batch_kernel
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image

CUDNN, EFFICIENT, CPU = "cudnn", "memory-efficient", "cpu"
TURING, AMPERE, ADA, HOPPER, BLACKWELL = (7, 5), (8, 0), (8, 9), (9, 0), (10, 0)


@pytest.mark.parametrize("queries", [1, 20, 64, 100, 192, 256, 512, 2048])
@pytest.mark.parametrize("keys", [64, 192, 256, 512])
@pytest.mark.parametrize("capability", [None, TURING, AMPERE, ADA, HOPPER, BLACKWELL])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("biased", [True, False])
def test_the_fastest_kernel_that_is_right(
    queries: int,
    keys: int,
    capability: tuple[int, int] | None,
    precision: Precision,
    biased: bool,
) -> None:
    """cuDNN on Hopper and later in half precision, where its gradients are finite."""
    nan = biased and (queries in (64, 192) or keys in (64, 192))
    expected = CPU
    if capability is not None:
        half = capability in (HOPPER, BLACKWELL) and precision != "fp32"
        expected = CUDNN if half and not nan else EFFICIENT
    assert attention_kernel(queries, keys, capability, precision, biased) == expected


@pytest.mark.parametrize(
    ("overrides", "capability", "image", "clip"),
    [
        # 64 and 256 tokens of an image; 128 to 256 and 2048 of a clip.
        ([], HOPPER, EFFICIENT, CUDNN),
        ([], BLACKWELL, EFFICIENT, CUDNN),
        ([], AMPERE, EFFICIENT, EFFICIENT),
        ([], TURING, EFFICIENT, EFFICIENT),
        ([], None, CPU, CPU),
        (["precision=fp32"], HOPPER, EFFICIENT, EFFICIENT),
        # Without a bias the tower may take it.
        (["model.useDeformableAttention=false"], HOPPER, CUDNN, CUDNN),
        # 12 x 12 patches: 36 of 144 visible.
        (["data.imageSize=168"], HOPPER, CUDNN, CUDNN),
        # 8 x 8 patches: the decoder's 64 tokens of an image, and 512 of a clip.
        (["data.imageSize=112", "mae.maskRatio=0.5"], HOPPER, EFFICIENT, CUDNN),
        # Blocks of one of five steps of 64 tokens, that see 192.
        (["data.clipFrames=10"], HOPPER, EFFICIENT, EFFICIENT),
    ],
    ids=str,
)
def test_a_micro_batch_takes_what_is_right_for_tower_and_decoder(
    overrides: list[str], capability: tuple[int, int] | None, image: Kernel, clip: Kernel
) -> None:
    training: TrainingSection = load_run("arlow-vision-3072", overrides).spec.training
    found = [
        micro_batch_kernel(training, tokens, capability)
        for tokens in (tokens_per_image(training), tokens_per_clip(training))
    ]
    assert found == [image, clip]
