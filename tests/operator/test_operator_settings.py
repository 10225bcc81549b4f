"""What the operator's environment variables mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_operator.settings import GPU_PRODUCTS, Settings, settings_from
from arlow_trainer.config import ConfigError

IMAGE = {"ARLOW_TRAINER_IMAGE": "trainer:1"}


def settings(**environ: str) -> Settings:
    return settings_from(IMAGE | environ)


def test_a_cloud_labels_products_in_its_own_way() -> None:
    products = settings(ARLOW_GPU_PRODUCTS="h100=nvidia-h100-80gb,v100-16gb=v100").gpu_products
    assert (products["h100"], products["v100-16gb"]) == ("nvidia-h100-80gb", "v100")
    assert products["rtx-8000"] == GPU_PRODUCTS["rtx-8000"]


def test_the_webhook_is_a_file_and_there_is_none_at_first() -> None:
    assert settings(ARLOW_WEBHOOK_FILE="/etc/hook/url").webhook_file == Path("/etc/hook/url")
    assert settings().webhook_file is None
    assert settings(ARLOW_WEBHOOK_FILE="").webhook_file is None


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ARLOW_TRAINER_IMAGE": ""}, "ARLOW_TRAINER_IMAGE is not set"),
        ({"ARLOW_GPU_PRODUCTS": "h900=x"}, "'h900=x'; allowed: NAME=LABEL"),
        ({"ARLOW_GPU_PRODUCTS": "h100"}, "'h100'; allowed: NAME=LABEL"),
        ({"ARLOW_PROGRESS_SECONDS": "often"}, "allowed: 0.5 to 600 seconds"),
    ],
)
def test_a_mistake_is_told(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(**environ)
