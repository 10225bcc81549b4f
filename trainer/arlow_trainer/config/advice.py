"""Warnings about settings that are allowed but probably unintended."""

from __future__ import annotations

from collections.abc import Iterator

from arlow_trainer.config.models import ArlowPretrain

# Published sizes of the default data sets, so that warnings need no download.
KNOWN_SIZES = {("ILSVRC/imagenet-1k", "train"): 1_281_167, ("ucf101", "train"): 9_537}


def steps_per_epoch(run: ArlowPretrain, set_size: int) -> int:
    """Returns the optimisation steps of an epoch over a set of `set_size` samples.

    One pass in whole global batches, at most `maxStepsPerEpoch`; with `data.repeat` exactly that.
    Clips replace images in the pass, which therefore shows 1 - videoProbability of the images.
    """
    training = run.spec.training
    if training.data.repeat:
        return training.max_steps_per_epoch
    return min(max(1, set_size // run.spec.global_batch_size), training.max_steps_per_epoch)


def total_steps(run: ArlowPretrain, set_size: int) -> int:
    """Returns the optimisation steps of the whole run."""
    return run.spec.training.epochs * steps_per_epoch(run, set_size)


def known_set_size(run: ArlowPretrain) -> int | None:
    """Returns the size of the set that an epoch passes over, where it is published; else None."""
    data = run.spec.training.data
    source = next(iter(data.drawn.values()))
    return KNOWN_SIZES.get((source.path, source.split))


def advise(run: ArlowPretrain, set_size: int | None) -> Iterator[str]:
    """Yields a warning for every inconsistent setting.

    Args:
        run: the run.
        set_size: samples of the set that an epoch passes over; None if it is not known yet, then
            the maximum number of steps is assumed.
    """
    training = run.spec.training
    data, warmup = training.data, training.optimizer.warmup_steps
    max_steps = training.epochs * training.max_steps_per_epoch
    steps = max_steps if set_size is None else total_steps(run, set_size)
    if warmup >= steps:
        longer = (
            f"set data.repeat=true to repeat the set ({max_steps:,} steps), or "
            if steps < max_steps
            else ""
        )
        peak = training.optimizer.learning_rate * steps / warmup
        yield (
            f"spec.training.optimizer.warmupSteps: {_length(run, set_size)}, so a warm-up of "
            f"{warmup:,} never ends: the learning rate rises to {peak:.2g} and the cosine decay "
            f"never begins; {longer}set optimizer.warmupSteps to about {max(1, steps // 20):,}"
        )
    if run.spec.checkpoint.url.startswith("memory://"):
        yield (
            f"spec.checkpoint.url: {run.spec.checkpoint.url} is this process's memory: its "
            "checkpoints end with it, and no other process can read them"
        )
    checkpoint = run.spec.checkpoint
    if not checkpoint.every_minutes and not 0 < checkpoint.every_steps <= steps:
        bound = "at most " if set_size is None and not data.repeat else ""
        reason = (
            f"{checkpoint.every_steps:,} is more than the run's {bound}{steps:,} steps"
            if checkpoint.every_steps
            else "0, and everyMinutes is not set"
        )
        yield (
            f"spec.checkpoint.everySteps: {reason}, so the only checkpoint is the one at the end"
        )
    batch = training.batch
    declared = batch.per_device * batch.accumulation * run.spec.nodes.devices
    chosen = {"per_device", "accumulation"} & batch.model_fields_set
    if batch.global_size and chosen and batch.global_size != declared:
        yield (
            f"spec.training.batch.globalSize: {batch.global_size} is not perDevice x "
            f"accumulation x devices = {declared}; globalSize is used"
        )


def _length(run: ArlowPretrain, set_size: int | None) -> str:
    """Returns how many steps a run has, and why, as a clause of a sentence."""
    training = run.spec.training
    data, epoch = training.data, training.max_steps_per_epoch
    if data.repeat:
        return f"the run has {training.epochs * epoch:,} steps"
    if set_size is None:
        return f"the run has at most {training.epochs * epoch:,} steps (epochs x maxStepsPerEpoch)"
    steps = steps_per_epoch(run, set_size)
    source = next(iter(data.drawn.values()))
    one_pass = (
        f"one pass over {source.path} is {steps:,} steps of {run.spec.global_batch_size} samples"
    )
    if set_size // run.spec.global_batch_size > epoch:
        one_pass = f"an epoch over {source.path} is cut at maxStepsPerEpoch = {steps:,} steps"
    elif len(data.drawn) > 1:
        clips = data.video_probability
        one_pass += f" ({clips:.0%} of them clips, so that it shows {1 - clips:.0%} of the images)"
    return f"{one_pass}, and the run has {training.epochs * steps:,} steps"
