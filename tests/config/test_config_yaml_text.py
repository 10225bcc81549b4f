"""YAML as it is read from files, and written by `arlow config show`."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.config import ConfigError, load_run, to_yaml
from arlow_trainer.config.presets import PRESETS
from arlow_trainer.config.yaml_text import YamlProblem, read_documents, write_document

HEAD = "apiVersion: arlow.dev/v1alpha1\nkind: ArlowPretrain\nmetadata:\n  name: a\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("spec:\n  training: {\n", 7, "expected"),
        ("spec:\n\ttraining: {}\n", 6, "a tab where kubectl takes spaces alone: indent with"),
        ("spec:\n  training: a\n\tb\n", 7, "a tab where kubectl takes spaces alone"),
        ("spec:\n  -\ta: 1\n", 6, "a tab where kubectl takes spaces alone"),
        ("spec:\n  training:\n    mae: 1\n    mae: 2\n", 8, "duplicate key mae"),
        ("spec: {training: {seed: 1, seed: 1}}\n", 5, "duplicate key seed"),
        ("spec: *nowhere\n", 5, "undefined alias"),
        ("spec: !!python/object:os.system {}\n", 5, "unknown tag"),
        ("spec: \x00\n", 5, "special characters"),
        ('spec:\n  image: "\\U00110000"\n', 6, "out of range"),
        ('spec:\n  image: "\\UFFFFFFFF"\n', 6, "out of range"),
        (f"...\n%YAML {'9' * 5000}.1\n---\n", 6, "out of range"),
        ('spec: {}\n"\\ud800": 1\n', 6, "surrogate"),
        ('spec:\n  image: "\\ude00"\n', 6, "surrogate"),
    ],
)
def test_bad_yaml_is_reported_with_its_line(
    manifest: Path, text: str, line: int, problem: str
) -> None:
    manifest.write_text(HEAD + text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_run(str(manifest))
    message = str(caught.value)
    assert message.startswith(f"{manifest}:{line}: ")
    assert problem in message
    assert "\n" not in message


def test_two_sections_may_have_the_same_key(manifest: Path) -> None:
    manifest.write_text(
        HEAD + "spec:\n  training:\n    data:\n      images: {split: a}\n      videos: {split: a}\n"
    )
    data = load_run(str(manifest)).spec.training.data
    assert (data.images.split, data.videos.split) == ("a", "a")


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


# What kubectl makes of an unquoted scalar: `test_kubectl_reads_the_same` asks it.
READINGS: dict[str, object] = {
    **dict.fromkeys(["y", "Y", "yes", "YES", "on", "On", "true", "TRUE", "!!bool y"], True),
    **dict.fromkeys(["n", "N", "no", "No", "off", "OFF", "false", "False"], False),
    **dict.fromkeys(["~", "null", "Null", "NULL", "!!null ~"], None),
    **{text: text for text in ["yEs", "tRUE", "nul", "e5", "1e", "1e5x", "0x", "0b2", "0o8"]},
    **{text: text for text in ["=", "+", ".", "--5", "1,000", "infinity", "1.5.2", "_1", "é"]},
    **{text: text for text in ["1:30", "12:30:00", "2026-11-25", "2026-13-45"]},
    **{text: text for text in ["2026-11-25T10:00:00Z", "1e400", "-1e400", "0x1p4"]},
    **{"'010'": "010", '"y"': "y", "!!str 5": "5", "!!timestamp 2026-11-25": "2026-11-25"},
    **{"0o17": 15, "-0o17": -15, "0x1F": 31, "0b11": 3, "1_000": 1000, "1_": 1, "+1": 1},
    **{"10.0": 10, "5.": 5, "-0.0": 0, "1e2": 100, "1E5": 100_000, "1e+9": 10**9, "!!float 3": 3},
    **{"1e20": 10**20, "9007199254740993": 2**53 + 1, "9223372036854775807": 2**63 - 1},
    **{"1e-3": 1e-3, "1.5e-4": 1.5e-4, "-.5e2": -50, ".5": 0.5, "+.5": 0.5, "1_000.5": 1000.5},
    **{"1e21": 1e21, "5e-324": 5e-324, ".1_0": 0.1, "00.5": 0.5},
    **{text: text for text in ["._5", ".5_", ".1__0", ".5_e5", "._"]},
    **{"-._5": -0.5, "1_._5": 1.5, "1e_5": 100_000, "-_1": -1, "!!int 0o17": 15, "!!float 5e0": 5},
}


@pytest.mark.parametrize("text", READINGS)
def test_a_scalar_is_read_as_kubectl_reads_it(text: str) -> None:
    [read] = read_documents(f"[{text}]") if "," not in text else read_documents(f"- {text}")
    assert read == [READINGS[text]]
    assert type(read[0]) is type(READINGS[text])


@pytest.mark.skipif(not which("kubectl"), reason="kubectl is not installed")
def test_kubectl_reads_the_same() -> None:
    """`kubectl label --local` reads a file as `kubectl apply` does, and needs no cluster."""
    values = "".join(f"  - {text}\n" for text in READINGS)
    command = ["kubectl", "label", "--local", "--filename=-", "--output=json", "a=b"]
    done = subprocess.run(
        command, input=f"{HEAD}spec:\n{values}", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["spec"] == list(READINGS.values())


@pytest.mark.parametrize("text", ["010", "-010", "08", "007", "00", "0_1"])
def test_a_leading_zero_is_refused(manifest: Path, text: str) -> None:
    manifest.write_text(f"{HEAD}spec:\n  training:\n    epochs: {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_run(str(manifest))
    assert str(caught.value).startswith(f"{manifest}:7: {text} has a leading zero")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (".inf", "not a number that JSON can hold"),
        (".nan", "not a number that JSON can hold"),
        ("!!int 1.5", "1.5 is no int"),
        ("!!int y", "y is no int"),
        *((f"!!int {text}", f"{text} is no int") for text in ("10.0", "1e1", "1" + "0" * 20)),
        *((f"! {text}", "leave the tag ! out") for text in ("y", "5", "'y'", "")),
        ("{! <<: {a: 1}}", "leave the tag ! out"),
        ("{a: 1, <<: {a: 2}}", "<< holds a, which is given above it"),
        ("{y: 1, <<: [{b: 1}, {true: 2}]}", "<< holds true, which is given above it"),
        ("{<<: {a: 1}, <<: {b: 2}}", "<< is given twice"),
        ("a\tb", "a tab where kubectl takes spaces alone"),
        ("!!binary aGk=", "unknown tag"),
        ("!custom 5", "unknown tag"),
        ("!!set {a}", "unknown tag"),
        ("{? [a] : 1}", "a key must be text"),
        ("{~: 1}", "a key must be text"),
        ("{y: 1, true: 2}", "duplicate key true"),
        ("{<<: 5}", "<< takes a mapping"),
        ("&a [*a]", "an alias stands for what holds it"),
    ],
)
def test_what_kubectl_refuses_or_folds_is_refused(text: str, problem: str) -> None:
    with pytest.raises(YamlProblem, match=re.escape(problem)) as caught:
        read_documents(f"a: 1\nb: {text}\n")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{y: 1, 5: 2, 0x10: 3, off: 4}", {"true": 1, "5": 2, "16": 3, "false": 4}),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}),
        ("{<<: [{a: 1}, {a: 2, b: 2}], b: 3}", {"a": 1, "b": 3}),
        ("{b: 3, <<: [{a: 1}, {a: 2}]}", {"a": 1, "b": 3}),
        ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
    ],
)
def test_keys_are_text_and_mappings_merge(text: str, value: object) -> None:
    assert read_documents(text) == [value]


def test_json_may_be_indented_with_tabs() -> None:
    run = {"spec": {"training": {"seed": 7, "optimizer": {"betas": [0.8, 0.9]}}}}
    assert read_documents(json.dumps(run, indent="\t")) == [run]
    assert read_documents("spec:\n  a:\t1\t\n  b:\t{c: 1,\td: 2}\n  e: f\t# g\n") == [
        {"spec": {"a": 1, "b": {"c": 1, "d": 2}, "e": "f"}}
    ]


def test_whole_numbers_may_have_a_point(manifest: Path) -> None:
    manifest.write_text(f"{HEAD}spec: {{training: {{epochs: 10.0, seed: 1e2}}}}\n")
    training = load_run(str(manifest)).spec.training
    assert (training.epochs, training.seed) == (10, 100)


ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in itertools.pairwise("abcdefghijklm")
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 200_000, "nested more than 50 deep"),
        ("{" * 200_000, "nested more than 50 deep"),
        ("- " * 100_000, "nested more than 50 deep"),
        (ALIAS_BOMB, "more than 5,000 values, aliases counted in full"),
        ("x" * 300_000, "at most 256 KiB"),
        ("é" * 300_000, "at most 256 KiB"),
    ],
    ids=["brackets", "braces", "dashes", "aliases", "long", "long-utf-8"],
)
def test_bombs_are_refused_at_once(manifest: Path, text: str, problem: str) -> None:
    manifest.write_text(text, "utf-8")
    start = time.process_time()
    with pytest.raises(ConfigError, match=problem):
        load_run(str(manifest))
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize("digits", [20, 5_000, 100_000])
def test_a_number_of_any_length_is_refused_at_once(manifest: Path, digits: int) -> None:
    manifest.write_text(f"{HEAD}spec: {{training: {{seed: {'9' * digits}}}}}\n")
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"seed: \S+ is not allowed; allowed: a whole number"):
        load_run(str(manifest))
    assert time.process_time() - start < 1


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_read_or_a_problem(text: str) -> None:
    try:
        read_documents(text)
    except YamlProblem as problem:
        assert "\n" not in str(problem)


@given(text=st.text(max_size=8) | st.sampled_from(sorted(READINGS)) | st.just("010"))
def test_any_text_is_written_so_that_it_stays_text(text: str) -> None:
    written = write_document({"a": [text]})
    assert read_documents(written) == [{"a": [text]}]


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
            "spec.nodes.count=4",
            "seed=9223372036854774784",
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
    assert "null" not in to_yaml(run)
    again = load_run(str(path))
    assert again == run
    assert to_yaml(again) == to_yaml(run)


@given(st.text(alphabet="\"\\'UuxN0189dDfF%YAML !&*{}[]:-\n#|>", max_size=40))
def test_any_escapes_are_read_or_refused(text: str) -> None:
    try:
        documents = read_documents(text)
    except YamlProblem:
        return
    json.dumps(documents, ensure_ascii=False, allow_nan=False).encode()
