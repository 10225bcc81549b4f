"""YAML as it is read from files, and written by `arlow config show`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.config import ConfigError, load_run, to_yaml
from arlow_trainer.config.presets import PRESETS
from arlow_trainer.config.yaml_text import YamlProblem, read_documents

HEAD = "apiVersion: arlow.dev/v1alpha1\nkind: ArlowPretrain\nmetadata:\n  name: a\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("spec:\n  training: {\n", 7, "expected"),
        ("spec:\n\ttraining: {}\n", 6, "cannot start any token"),
        ("spec:\n  training:\n    mae: 1\n    mae: 2\n", 8, "duplicate key mae"),
        ("spec: {training: {seed: 1, seed: 1}}\n", 5, "duplicate key seed"),
        ("spec: *nowhere\n", 5, "undefined alias"),
        ("spec: !!python/object:os.system {}\n", 5, "could not determine a constructor"),
        ("spec: \x00\n", 5, "special characters"),
    ],
)
def test_bad_yaml_is_reported_with_its_line(
    manifest: Path, text: str, line: int, problem: str
) -> None:
    manifest.write_text(HEAD + text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_run(str(manifest))
    message = str(caught.value)
    assert message.startswith(f"{manifest}:{line}: not valid YAML: ")
    assert problem in message
    assert "\n" not in message


def test_two_sections_may_have_the_same_key(manifest: Path) -> None:
    manifest.write_text(
        HEAD + "spec:\n  training:\n    data:\n      images: {split: a}\n      videos: {split: a}\n"
    )
    assert load_run(str(manifest)).spec.training.data.videos is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds 0 YAML documents"),
        ("# nothing\n", "holds 0 YAML documents"),
        (HEAD + "---\n" + HEAD, "holds 2 YAML documents"),
        ("- a\n- b\n", "holds a list"),
        ("hello\n", "holds a str"),
    ],
)
def test_a_file_holds_one_object(manifest: Path, text: str, message: str) -> None:
    manifest.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_run(str(manifest))


def test_separators_and_a_byte_order_mark_are_accepted(manifest: Path) -> None:
    manifest.write_text("\ufeff---\n" + HEAD + "---\n", "utf-8")
    assert load_run(str(manifest)).metadata.name == "a"


def test_a_binary_file_is_reported(manifest: Path) -> None:
    manifest.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(str(manifest))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5e-4", 1.5e-4),
        ("2E4", 2e4),
        ("-.5e2", -50.0),
        ("12", 12),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1e5x", "1e5x"),
    ],
)
def test_numbers_are_read_as_they_are_written(text: str, value: object) -> None:
    [read] = read_documents(text)
    assert read == value
    assert type(read) is type(value)


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_read_or_a_problem(text: str) -> None:
    try:
        read_documents(text)
    except YamlProblem as problem:
        assert "\n" not in str(problem)


@pytest.mark.parametrize("text", ["2026-13-45", "9" * 5000, "[" * 5000])
def test_what_python_cannot_hold_is_a_problem(text: str) -> None:
    with pytest.raises(YamlProblem):
        read_documents(text)


OVERRIDES = st.lists(
    st.sampled_from(
        [
            "mae.maskRatio=0.6",
            "optimizer.learningRate=1e-5",
            "data.repeat=true",
            "data.videos={path: ./clips, column: clip}",
            "batch.globalSize=48",
            "model.deepstackVisualIndexes=[0, 2]",
            "checkpoint.url=s3://bucket/runs",
            "metadata.name=another",
            "spec.resources.nodes=4",
            "seed=9223372036854775807",
        ]
    ),
    unique=True,
)


@given(preset=st.sampled_from(sorted(PRESETS)), overrides=OVERRIDES)
def test_what_show_writes_is_the_same_run(
    preset: str, overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = load_run(preset, overrides)
    path = tmp_path_factory.mktemp("shown") / "run.yaml"
    path.write_text(to_yaml(run), "utf-8")
    again = load_run(str(path))
    assert again == run
    assert to_yaml(again) == to_yaml(run)
