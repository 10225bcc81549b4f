"""The presets, value by value."""

from __future__ import annotations

import pytest

from arlow_trainer.config import ArlowPretrain, ConfigError, load_run, validate
from arlow_trainer.config.load import without_nulls
from arlow_trainer.config.presets import PRESETS

FULL_RUN = {
    "training.preset": "arlow-vision-3072",
    "training.epochs": 1,
    "training.max_steps_per_epoch": 2_621_440,
    "training.precision": "fp16",
    "training.attention": "sdpa",
    "training.zero_stage": 2,
    "training.gradient_checkpointing": False,
    "training.model.depth": 48,
    "training.model.embed_dim": 1536,
    "training.model.hidden_size": 3072,
    "training.model.num_heads": 24,
    "training.model.hidden_act": "gelu_pytorch_tanh",
    "training.model.mlp_ratio": 4.0,
    "training.model.patch_size": 14,
    "training.model.temporal_patch_size": 2,
    "training.model.spatial_merge_size": 2,
    "training.model.use_deformable_attention": True,
    "training.model.deformable_attention_window": 0.25,
    "training.model.deformable_attention_strength": 4.0,
    "training.model.use_progressive_patches": True,
    "training.model.deepstack_visual_indexes": None,
    "training.model.mrope_sections": None,
    "training.model.initializer_range": 0.02,
    "training.mae.mask_ratio": 0.75,
    "training.mae.decoder_dim": 512,
    "training.mae.decoder_depth": 8,
    "training.mae.decoder_heads": 8,
    "training.mae.normalized_pixel_loss": True,
    "training.data.images.path": "ILSVRC/imagenet-1k",
    "training.data.images.split": "train",
    "training.data.videos.path": "ucf101",
    "training.data.videos.split": "train",
    "training.data.video_probability": 0.25,
    "training.data.image_size": 224,
    "training.data.repeat": False,
    "training.batch.per_device": 2,
    "training.batch.accumulation": 16,
    "training.optimizer.learning_rate": 1.5e-4,
    "training.optimizer.weight_decay": 0.05,
    "training.optimizer.betas": [0.9, 0.95],
    "training.optimizer.warmup_steps": 40_000,
    "training.optimizer.max_grad_norm": 1.0,
    "nodes.devices": 8,
    "global_batch_size": 256,
}


def value_at(run: ArlowPretrain, path: str) -> object:
    node: object = run.spec
    for name in path.split("."):
        node = getattr(node, name)
    return node


def manifest(training: object) -> dict[str, object]:
    return {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": "arlow-vision-3072"},
        "spec": {"training": training},
    }


@pytest.mark.parametrize("path", FULL_RUN)
def test_an_empty_training_section_is_the_full_run(path: str) -> None:
    assert value_at(validate(manifest({}), "test"), path) == FULL_RUN[path]


@pytest.mark.parametrize("training", [{}, None, {"preset": "arlow-vision-3072"}, {"model": None}])
def test_every_way_to_leave_it_empty_is_the_same_run(training: object) -> None:
    assert validate(manifest(training), "test") == load_run("arlow-vision-3072")


@pytest.mark.parametrize("spec", [None, {}, {"training": None, "checkpoint": None}])
def test_an_empty_spec_is_the_full_run(spec: object) -> None:
    document = {**manifest({}), "spec": spec}
    assert validate(document, "test") == load_run("arlow-vision-3072")


def test_tiny_fits_a_cpu() -> None:
    tiny = load_run("tiny")
    training = tiny.spec.training
    assert training.precision == "fp32"
    assert (training.model.depth, training.model.embed_dim) == (6, 48)
    assert tiny.spec.global_batch_size == 32
    assert training.optimizer.warmup_steps < training.max_steps_per_epoch
    # What tiny does not name stays the full run's.
    assert training.mae.mask_ratio == 0.75
    assert training.model.use_deformable_attention


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_changes_only_what_it_names(preset: str) -> None:
    changed = validate(manifest({"preset": preset, "mae": {"maskRatio": 0.5}}), "test")
    untouched = load_run(preset)
    assert changed.spec.training.mae.mask_ratio == 0.5
    assert changed.spec.training.mae.decoder_dim == untouched.spec.training.mae.decoder_dim
    assert changed.spec.training.model == untouched.spec.training.model


def test_one_field_of_a_default_data_set_can_be_changed_alone() -> None:
    run = validate(manifest({"data": {"images": {"split": "validation"}}}), "test")
    images = run.spec.training.data.images
    assert (images.path, images.split) == ("ILSVRC/imagenet-1k", "validation")


def test_a_null_is_dropped_at_any_depth_before_the_preset_is_laid_under() -> None:
    """As `kubectl apply` does before it sends; a null that is an item of a list stays."""
    assert without_nulls({"a": None, "b": {"c": None, "d": [None, {"e": None, "f": 1}]}}) == {
        "b": {"d": [None, {"f": 1}]}
    }
    written = {
        "preset": "tiny",
        "picturesEverySteps": None,
        "data": {"videos": None, "images": {"path": "./x", "column": None}, "workers": None},
        "batch": {"globalSize": None, "microBatch": None},
        "probe": {"data": {"path": "cifar10", "name": None}, "limit": None},
    }
    sent = {
        "preset": "tiny",
        "data": {"images": {"path": "./x"}},
        "batch": {},
        "probe": {"data": {"path": "cifar10"}},
    }
    run = validate(manifest(written), "test")
    assert run == validate(manifest(sent), "test")
    training = run.spec.training
    assert training.batch.global_size == 32
    assert training.pictures_every_steps == 200
    assert training.data.videos.path == "ucf101"
    assert training.probe is not None
    assert training.probe.limit == 2000


def test_none_and_all_have_a_value() -> None:
    none = {
        "preset": "tiny",
        "picturesEverySteps": 0,
        "batch": {"globalSize": 0},
        "probe": {"data": {"path": "cifar10"}, "limit": 0},
    }
    run = validate(manifest(none), "test")
    assert run.spec.training.pictures_every_steps == 0
    assert run.spec.global_batch_size == 2 * 16 * 8


@pytest.mark.parametrize(
    ("overrides", "fits"),
    [
        (["model.deformableAttentionStrength=640"], True),
        (["model.deformableAttentionStrength=650"], False),
        (["model.deformableAttentionStrength=650", "precision=bf16"], True),
        (["model.deformableAttentionStrength=650", "model.deformableAttentionWindow=0"], True),
        (["model.deformableAttentionStrength=650", "model.useDeformableAttention=false"], True),
    ],
)
def test_the_distance_bias_is_finite_in_fp16(overrides: list[str], fits: bool) -> None:
    if fits:
        load_run("arlow-vision-3072", overrides)
        return
    with pytest.raises(ConfigError, match=r"deformableAttentionStrength.*at most 644"):
        load_run("arlow-vision-3072", overrides)
