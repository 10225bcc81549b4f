"""`--set path=value`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel, to_snake

from arlow_trainer.config import ArlowPretrain, ConfigError, load_run
from arlow_trainer.config.load import apply_override
from arlow_trainer.config.models import RunSpec
from arlow_trainer.config.training import TrainingSection


def test_a_short_path_is_one_in_the_training_section() -> None:
    assert load_run("tiny", ["mae.maskRatio=0.5"]).spec.training.mae.mask_ratio == 0.5
    assert load_run("tiny", ["seed=7"]).spec.training.seed == 7


def test_a_path_may_start_at_the_spec_or_be_written_out() -> None:
    for path in ("checkpoint.url", "spec.checkpoint.url"):
        assert load_run("tiny", [f"{path}=s3://b/r"]).spec.checkpoint.url == "s3://b/r"
    for path in ("training.epochs", "spec.training.epochs"):
        assert load_run("tiny", [f"{path}=3"]).spec.training.epochs == 3
    assert load_run("tiny", ["metadata.name=mine"]).run_url == "runs/mine"
    policy = load_run("tiny", ["failurePolicy.stall.factor=3"]).spec.failure_policy
    assert policy.stall.factor == 3


@pytest.mark.parametrize("name", [to_camel(name) for name in RunSpec.model_fields])
def test_every_field_of_the_spec_is_found_by_its_own_name(name: str) -> None:
    assert to_snake(name) not in TrainingSection.model_fields
    document = {"spec": {name: 1}}
    assert apply_override({}, f"{name}=1") == apply_override({}, f"spec.{name}=1") == document


@pytest.mark.parametrize("name", [to_camel(name) for name in ArlowPretrain.model_fields])
def test_a_path_may_start_at_every_field_of_the_object(name: str) -> None:
    assert apply_override({}, f"{name}.x=1") == {name: {"x": 1}}


def test_of_several_values_the_last_is_used() -> None:
    assert load_run("tiny", ["seed=1", "seed=2"]).spec.training.seed == 2


def test_a_preset_can_be_set() -> None:
    assert load_run("arlow-vision-3072", ["preset=tiny"]).spec.training.model.depth == 6


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("optimizer.learningRate=1e-3", lambda t: t.optimizer.learning_rate == 1e-3),
        ("optimizer.betas=[0.8, 0.9]", lambda t: t.optimizer.betas == [0.8, 0.9]),
        ("data.workers=null", lambda t: t.data.workers is None),
        ("data.flip=false", lambda t: t.data.flip is False),
        ("data.images.path=/data/a=b", lambda t: t.data.images.path == "/data/a=b"),
        ("data.images.split=validation", lambda t: t.data.images.path == "ILSVRC/imagenet-1k"),
        ("data.images={path: ./x}", lambda t: t.data.images.path == "./x"),
        (" mae.maskRatio = 0.5 ", lambda t: t.mae.mask_ratio == 0.5),
    ],
)
def test_the_value_is_yaml(override: str, read: object) -> None:
    training = load_run("tiny", [override]).spec.training
    assert read(training)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mae.maskRatio", "write it as path=value"),
        ("=5", "write it as path=value"),
        ("mae..maskRatio=5", "write it as path=value"),
        ("mae.=5", "write it as path=value"),
        ("", "write it as path=value"),
        ("mae.maskRatio=[", "not valid YAML"),
        ("seed={a: 1, a: 2}", "duplicate key a"),
        ("mae.maskRatio=0.5\n---\n0.6", "must be one YAML value, not 2 YAML documents"),
        ("mae.maskRatio=", "the value is empty; mae.maskRatio=null is the default"),
        ("mae.mask_ratio=0.5", "did you mean maskRatio"),
        ("mae.maskRatio.deep=0.5", "is not allowed; allowed: a number"),
        ("mae=0.5", "a section of fields"),
        ("spec.traning.seed=1", "did you mean training"),
        ("epochs=2026-13-45", '"2026-13-45" is not allowed; allowed: a whole number'),
        ("epochs=010", "010 has a leading zero"),
        ("kind=Pod", 'kind: "Pod" is not allowed'),
        ("status=Failed", 'status: "Failed" is not allowed'),
        ("pod_template_patch={}", "did you mean podTemplatePatch"),
        ("api_version=v1", "did you mean apiVersion"),
    ],
)
def test_a_bad_override_is_reported(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run("tiny", [override])
    assert message in str(caught.value)
    assert "--set" in str(caught.value)


@given(path=st.text(max_size=12), value=st.text(max_size=12))
def test_no_override_ends_in_a_traceback(path: str, value: str) -> None:
    for override in (f"{path}={value}", f"seed={value}", f"data.{path}={value}"):
        try:
            run = load_run("tiny", [override])
        except ConfigError as error:
            assert "--set" in str(error)
        else:
            assert isinstance(run, ArlowPretrain)


@pytest.mark.parametrize(
    "path",
    [
        "data.videos",
        "data.images",
        "data.images.path",
        "data.workers",
        "picturesEverySteps",
        "batch.globalSize",
        "batch",
        "mae.maskRatio",
        "model.deepstackVisualIndexes",
        "preset",
        "spec.checkpoint",
        "spec.checkpoint.keepEvery",
    ],
)
def test_null_is_the_default(path: str) -> None:
    preset = "arlow-vision-3072" if path == "preset" else "tiny"
    assert load_run(preset, [f"{path}=null"]) == load_run(preset)


@pytest.mark.parametrize(
    ("probability", "drawn"),
    [(0, ["image"]), (0.25, ["image", "video"]), (1, ["video"])],
)
def test_a_set_that_is_never_drawn_is_not_required(probability: float, drawn: list[str]) -> None:
    data = load_run("tiny", [f"data.videoProbability={probability}"]).spec.training.data
    assert list(data.drawn) == drawn


@pytest.mark.parametrize(
    ("override", "field"),
    [
        (r'checkpoint.url="a\0b"', "spec.checkpoint.url"),
        (r'data.images.path="a\0b"', "spec.training.data.images.path"),
        (r'metadata.name="a\0b"', "metadata.name"),
        (r'metadata.labels={a: "\0"}', "metadata.labels.a"),
        (r'spec.env=[{name: A, value: "x"}, {name: B, value: "\0"}]', "spec.env[1].value"),
        (r'spec.podTemplatePatch={spec: {a: [{b: "\0"}]}}', "spec.podTemplatePatch.spec.a[0].b"),
        (r'metadata.annotations={"a\0b": x}', r'metadata.annotations."a\u0000b"'),
    ],
)
def test_a_null_character_in_any_text_is_refused(override: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run("tiny", [override, "seed=-1"])
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"tiny with --set: {field}: ")
    assert "null character" in first
    assert "spec.training.seed: -1" in second
    with pytest.raises(ConfigError, match="null character"):
        load_run("tiny", [override])
