"""Cross-field warnings: settings that are allowed and yet probably not meant."""

from __future__ import annotations

from collections.abc import Iterator

from .models import ArlowPretrain

# Public sizes of the sets that the default names, so that advice needs no download.
KNOWN_SIZES = {("ILSVRC/imagenet-1k", "train"): 1_281_167, ("ucf101", "train"): 9_537}


def steps_per_epoch(run: ArlowPretrain, set_size: int) -> int:
    """Returns the optimisation steps of an epoch over a set of `set_size` samples.

    One pass in whole global batches, at most `maxStepsPerEpoch`; with `data.repeat` exactly that.
    """
    training = run.spec.training
    if training.data.repeat:
        return training.max_steps_per_epoch
    return min(max(1, set_size // run.spec.global_batch_size), training.max_steps_per_epoch)


def total_steps(run: ArlowPretrain, set_size: int) -> int:
    """Returns the optimisation steps of the whole run."""
    return run.spec.training.epochs * steps_per_epoch(run, set_size)


def known_set_size(run: ArlowPretrain) -> int | None:
    """Returns the size of the set that measures an epoch, where it is public knowledge."""
    data = run.spec.training.data
    source = data.images or data.videos
    return KNOWN_SIZES.get((source.path, source.split)) if source else None


def advise(run: ArlowPretrain, set_size: int | None) -> Iterator[str]:
    """Yields a warning in words for every inconsistent schedule; size None: not known yet."""
    training = run.spec.training
    data, warmup = training.data, training.optimizer.warmup_steps
    if set_size is None and not data.repeat:
        return
    steps = total_steps(run, set_size or 0)
    if warmup >= steps:
        reason = "the run"
        if not data.repeat:
            one_pass = steps_per_epoch(run, set_size or 0)
            reason = (
                f"one pass over {(data.images or data.videos).path} is "  # type: ignore[union-attr]
                f"{one_pass:,} steps of {run.spec.global_batch_size} samples, and the run"
            )
        offer = (
            "set data.repeat=true to go through the set again and again "
            f"({training.epochs * training.max_steps_per_epoch:,} steps), or "
            if not data.repeat
            else ""
        )
        peak = training.optimizer.learning_rate * steps / warmup
        yield (
            f"spec.training.optimizer.warmupSteps: {reason} has {steps:,} steps, so a warm-up of "
            f"{warmup:,} never ends: the learning rate climbs to {peak:.2g} and the cosine never "
            f"begins; {offer}set optimizer.warmupSteps to about {max(1, steps // 20):,}"
        )
    if run.spec.checkpoint.every_steps > steps:
        yield (
            f"spec.checkpoint.everySteps: {run.spec.checkpoint.every_steps:,} is more than the "
            f"run's {steps:,} steps, so the only checkpoint is the last"
        )
    batch = training.batch
    declared = batch.per_device * batch.accumulation * run.spec.resources.devices
    chosen = {"per_device", "accumulation"} & batch.model_fields_set
    if batch.global_size and chosen and batch.global_size != declared:
        yield (
            f"spec.training.batch.globalSize: {batch.global_size} is not perDevice x "
            f"accumulation x devices = {declared}; globalSize counts"
        )
