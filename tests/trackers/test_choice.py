"""Which trackers a run has, by environment and packages."""

from __future__ import annotations

import pytest

from arlow_trainer.trackers.choice import chosen_trackers, is_installed

ALL = {"tensorboard", "mlflow", "wandb"}
URI = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["TensorBoard"]),
        (URI, ["TensorBoard", "MLflow"]),
        ({"MLFLOW_TRACKING_URI": ""}, ["TensorBoard"]),
        ({"WANDB_API_KEY": "k"}, ["TensorBoard", "Weights & Biases"]),
        ({"WANDB_MODE": "offline"}, ["TensorBoard", "Weights & Biases"]),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, ["TensorBoard"]),
        ({"WANDB_PROJECT": "vision"}, ["TensorBoard"]),
        ({**URI, "WANDB_MODE": "online"}, ["TensorBoard", "MLflow", "Weights & Biases"]),
    ],
)
def test_the_environment_asks(environ: dict[str, str], expected: list[str]) -> None:
    warnings: list[str] = []
    assert chosen_trackers(environ, warnings.append, ALL.__contains__) == expected
    assert warnings == []


def test_what_is_asked_for_and_not_installed_is_a_warning() -> None:
    warnings: list[str] = []
    environ = {**URI, "WANDB_API_KEY": "secret"}
    assert chosen_trackers(environ, warnings.append, lambda package: False) == []
    assert warnings == [
        "nothing goes to TensorBoard: the package tensorboard is not installed; "
        "pip install 'arlow-pretrain[trainer]'",
        "nothing goes to MLflow: MLFLOW_TRACKING_URI is set, but the package mlflow is not "
        "installed; pip install 'arlow-pretrain[mlflow]'",
        "nothing goes to Weights & Biases: WANDB_API_KEY is set, but the package wandb is not "
        "installed; pip install 'arlow-pretrain[wandb]'",
    ]


def test_packages_are_found_without_an_import() -> None:
    assert is_installed("json")
    assert not is_installed("no_such_package_of_ours")
