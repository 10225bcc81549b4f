"""Which experiment trackers a run has: TensorBoard's files always, others where they are set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Literal

TrackerName = Literal["TensorBoard", "MLflow", "Weights & Biases"]

# Its package, the extra of this project that brings it, and the variables that ask for it.
_TRACKERS: dict[TrackerName, tuple[str, str, tuple[str, ...]]] = {
    "TensorBoard": ("tensorboard", "trainer", ()),
    "MLflow": ("mlflow", "mlflow", ("MLFLOW_TRACKING_URI",)),
    "Weights & Biases": ("wandb", "wandb", ("WANDB_API_KEY", "WANDB_MODE")),
}


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return find_spec(package) is not None


def chosen_trackers(
    environ: Mapping[str, str],
    warn: Callable[[str], None],
    installed: Callable[[str], bool] = is_installed,
) -> list[TrackerName]:
    """Returns the trackers that the environment asks for; warns of those that are not installed."""
    found: list[TrackerName] = []
    for name, (package, extra, variables) in _TRACKERS.items():
        asking = next((variable for variable in variables if environ.get(variable)), None)
        if variables and asking is None:
            continue
        if name == "Weights & Biases" and environ.get("WANDB_MODE") == "disabled":
            continue
        if installed(package):
            found.append(name)
        else:
            why = f"{asking} is set, but the" if asking else "the"
            warn(
                f"nothing goes to {name}: {why} package {package} is not installed; "
                f"pip install 'arlow-pretrain[{extra}]'"
            )
    return found
