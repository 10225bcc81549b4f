"""Every mistake of a file is reported at once: file, field, value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.config import ConfigError, ExitCode, load_run, validate
from arlow_trainer.config.allowed import run_schema
from arlow_trainer.config.models import STORE_SCHEMES
from arlow_trainer.storage.connection import split_url

HEAD = {
    "apiVersion": "arlow.dev/v1alpha1",
    "kind": "ArlowPretrain",
    "metadata": {"name": "mistaken"},
}

# Independent of each other, so that one file may have any of them.
MISTAKES: dict[str, tuple[str, object, str]] = {
    "model.depth": ("model.depth", 0, "a whole number, at least 1 and at most 1,000"),
    "model.patchSize": ("model.patchSize", "14", "a whole number, at least 1 and at most 16,384"),
    "mae.maskRatio": ("mae.maskRatio", 1.0, "a number, above 0 and below 1"),
    "precision": ("precision", "int8", "one of fp16, bf16, fp32"),
    "zeroStage": ("zeroStage", 3, "2"),
    "data.flip": ("data.flip", 1, "true or false"),
    "data.videoProbability": (
        "data.videoProbability",
        float("nan"),
        "a number, at least 0 and at most 1",
    ),
    "data.workers": ("data.workers", -1, "a whole number, at least 0 and at most 512"),
    "data.images.path": (
        "data.images.path",
        "",
        "text of at most 1,024 characters that is not empty",
    ),
    "optimizer.betas": ("optimizer.betas", 0.9, "a list of 2 numbers, at least 0 and below 1"),
    "batch": ("batch", [2, 16], "a section of fields"),
    "optimizer.learningRate": (
        "optimizer.learningRate",
        "fast",
        "a number, above 0 and at most 1,000,000,000",
    ),
}


def nested(path: str, value: object) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def merged(over: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(value, base[key]) if both else value
    return result


def lines_of(training: object, **top: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate({**HEAD, "spec": {"training": training}, **top}, "run.yaml")
    assert caught.value.exit_code == ExitCode.CONFIG
    return str(caught.value).splitlines()


@given(names=st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1))
def test_every_mistake_is_reported_and_nothing_else(names: set[str]) -> None:
    training: dict[str, Any] = {}
    for name in names:
        field, value, _ = MISTAKES[name]
        training = merged(nested(field, value), training)
    lines = lines_of(training)
    assert len(lines) == len(names)
    for name in names:
        field, _, allowed = MISTAKES[name]
        [line] = [line for line in lines if line.startswith(f"run.yaml: spec.training.{field}: ")]
        assert line.endswith(f" is not allowed; allowed: {allowed}")


def test_a_line_names_file_field_value_and_what_is_allowed() -> None:
    assert lines_of({"mae": {"maskRatio": 1.5}}) == [
        "run.yaml: spec.training.mae.maskRatio: 1.5 is not allowed; "
        "allowed: a number, above 0 and below 1"
    ]


@pytest.mark.parametrize(
    ("training", "field", "message"),
    [
        ({"mae": {"mask_ratio": 0.5}}, "mae.mask_ratio", "did you mean maskRatio?"),
        ({"model": {"embeddim": 96}}, "model.embeddim", "did you mean embedDim?"),
        ({"batch": {"size": 3}}, "batch.size", "allowed: perDevice, accumulation, globalSize"),
        ({"data": {"images": {"paht": "x"}}}, "data.images.paht", "did you mean path?"),
        ({"model": {5: 1}}, "model.5", "unknown field"),
    ],
)
def test_an_unknown_field_is_refused_with_a_suggestion(
    training: dict[str, Any], field: str, message: str
) -> None:
    [line] = lines_of(training)
    assert line.startswith(f"run.yaml: spec.training.{field}: unknown field (value ")
    assert message in line


@pytest.mark.parametrize(
    ("training", "field", "message"),
    [
        ({"model": {"numHeads": 7}}, "model.numHeads", "divides embedDim 1536"),
        ({"model": {"numHeads": 512}}, "model.numHeads", "even parts of at least 4"),
        ({"model": {"numHeads": 768}}, "model.numHeads", "even parts of at least 4"),
        ({"model": {"mropeSections": [1, 2, 3]}}, "model.mropeSections", "sum to"),
        (
            {"model": {"deepstackVisualIndexes": [12, 48]}},
            "model.deepstackVisualIndexes",
            "below depth 48",
        ),
        (
            {"model": {"deepstackVisualIndexes": [3, 3]}},
            "model.deepstackVisualIndexes",
            "different blocks",
        ),
        (
            {"model": {"deepstackVisualIndexes": [5, 3]}},
            "model.deepstackVisualIndexes",
            "ascending",
        ),
        ({"model": {"mlpRatio": 1e-9}}, "model.mlpRatio", "1 / embedDim"),
        ({"mae": {"decoderHeads": 3}}, "mae.decoderHeads", "divides decoderDim 512"),
        ({"data": {"imageSize": 225}}, "data.imageSize", "= 28"),
        ({"data": {"clipFrames": 3}}, "data.clipFrames", "a multiple of"),
        ({"mae": {"maskRatio": 0.999}}, "mae.maskRatio", "64 merge units; this one hides 64"),
        ({"mae": {"maskRatio": 0.001}}, "mae.maskRatio", "this one hides 0"),
    ],
)
def test_fields_that_contradict_each_other(
    training: dict[str, Any], field: str, message: str
) -> None:
    [line] = lines_of(training)
    assert line.startswith(f"run.yaml: spec.training.{field}: ")
    assert message in line


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "a URL that names a bucket, s3://BUCKET/FOLDER"),
        ("gs:///folder", "a URL that names a bucket, gs://BUCKET/FOLDER"),
        ("s3:/bucket/runs", "two slashes after s3:, as in s3://"),
        ("s3:", "two slashes after s3:, as in s3://"),
        ("file://", "a URL that names a folder, file:///FOLDER"),
        ("http://x/y", "a local folder, or a URL that begins with file://, s3://, gs://, gcs://"),
        ("S3://bucket", "a local folder, or a URL that begins with file://, s3://"),
        ("://bucket", "a local folder, or a URL that begins with file://, s3://"),
        ("", "that is not empty"),
    ],
)
def test_a_url_of_no_store_is_refused(url: str, message: str) -> None:
    [line] = lines_of({}, spec={"checkpoint": {"url": url}})
    assert line.startswith(f'run.yaml: spec.checkpoint.url: "{url}" is not allowed; allowed: ')
    assert message in line


@pytest.mark.parametrize(
    ("url", "run_url"),
    [
        ("runs", "runs/mistaken"),
        ("/", "/mistaken"),
        ("~/a:b/", "~/a:b/mistaken"),
        ("file:///", "file:///mistaken"),
        ("file:///data/runs", "file:///data/runs/mistaken"),
        ("s3://bucket", "s3://bucket/mistaken"),
        ("s3://bucket//", "s3://bucket/mistaken"),
        ("az://container/a", "az://container/a/mistaken"),
        ("memory://", "memory:///mistaken"),
    ],
)
def test_where_a_run_is_stored(url: str, run_url: str) -> None:
    run = validate({**HEAD, "spec": {"checkpoint": {"url": url}}}, "run.yaml")
    assert run.run_url == run_url


@pytest.mark.parametrize("scheme", STORE_SCHEMES)
def test_the_store_takes_every_scheme_that_the_schema_allows(scheme: str) -> None:
    assert split_url(f"{scheme}://bucket/runs") == (scheme, "bucket/runs")


@pytest.mark.parametrize(
    ("training", "allowed"),
    [
        ({"model": {"embedDim": 10**12}}, "at most 65,536"),
        ({"model": {"depth": 10**9}}, "at most 1,000"),
        ({"model": {"mlpRatio": 1e300}}, "at most 256"),
        ({"model": {"numHeads": 10**6}}, "at most 4,096"),
        ({"model": {"deepstackVisualIndexes": [10**9]}}, "at most 1,000"),
        ({"model": {"deepstackVisualIndexes": list(range(1000))}}, "at most 64 "),
        ({"mae": {"decoderDepth": 10**9}}, "at most 1,000"),
        ({"data": {"imageSize": 999_999_996}}, "at most 16,384"),
        ({"data": {"clipFrames": 10**9}}, "at most 4,096"),
        ({"data": {"workers": 100_000}}, "at most 512"),
        ({"data": {"images": {"path": "x" * 2000}}}, "at most 1,024 characters"),
        ({"batch": {"globalSize": 2**63 - 1}}, "at most 1,048,576"),
        ({"batch": {"microBatch": 10**7}}, "at most 1,048,576"),
        ({"batch": {"perDevice": 2**20}}, "which are 134,217,728"),
        ({"seed": 2**63 - 1023}, "at most 9,223,372,036,854,774,784"),
        ({"epochs": 10**10}, "at most 1,000,000,000"),
        # Beyond float32, in which PyTorch computes with them.
        ({"optimizer": {"learningRate": 1e300}}, "at most 1,000,000,000"),
        ({"optimizer": {"weightDecay": 1e300}}, "at most 1,000,000,000"),
        ({"optimizer": {"maxGradNorm": 1e39}}, "at most 1,000,000,000,000,000,000"),
        ({"model": {"deformableAttentionStrength": 1e300}}, "at most 1,000,000,000"),
    ],
)
def test_what_can_never_run_is_refused(training: dict[str, Any], allowed: str) -> None:
    [line] = lines_of(training)
    assert allowed in line
    assert len(line) < 250


def test_no_bound_overflows_where_kubernetes_reads_it() -> None:
    """A maximum of 2^63 - 1 became -2^63 there, and every value was refused."""

    def bounds(node: Any) -> Iterator[float]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("maximum", "exclusiveMaximum"):
                    yield value
                yield from bounds(value)

    found = list(bounds(run_schema()))
    assert len(found) > 30
    assert max(found) == int(float(max(found))) < 2**63


def test_every_number_is_bounded_on_both_sides() -> None:
    """What no bound holds can be larger than a checkpoint or PyTorch can hold."""

    def unbounded(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, list):
            for each in node:
                yield from unbounded(each, path)
        if not isinstance(node, dict):
            return
        if node.get("type") in ("integer", "number") and "const" not in node:
            ends = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
            if not all(node.keys() & {*end} for end in ends):
                yield path
        for key, value in node.items():
            yield from unbounded(value, f"{path}.{key}")

    assert list(unbounded(run_schema(), "")) == []


LARGE: list[tuple[object, str]] = [
    (2**64 - 1, "18446744073709551615"),
    (-(2**63) - 1, "-9223372036854775809"),
    (1e101, "1e+101"),
    (float("inf"), "Infinity"),
    ([{"a": [2**63]}], "9223372036854775808"),
]


@pytest.mark.parametrize(("value", "shown"), LARGE)
@pytest.mark.parametrize("field", ["spec.podTemplatePatch", "metadata.ownerReferences", "status"])
def test_a_number_that_is_not_read_back_is_refused_in_untyped_fields_too(
    field: str, value: object, shown: str
) -> None:
    part: object = {"a": value}
    if field == "metadata.ownerReferences":
        part = [{}, part]
    document: dict[str, Any] = merged(nested(field, part), HEAD)
    with pytest.raises(ConfigError) as caught:
        validate(document, "run.yaml")
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"run.yaml: {field}")
    assert f": {shown} is not allowed; allowed: whole numbers of 64 bits" in line


@pytest.mark.parametrize(
    "namespace", ["", "Team", "a/b", "-a", "a-", "a.b", "a b", "a\n", "x" * 64]
)
def test_a_namespace_is_one_that_kubernetes_takes(namespace: str) -> None:
    metadata = {"name": "a", "namespace": namespace}
    [line] = lines_of({}, metadata=metadata)
    assert line.startswith("run.yaml: metadata.namespace: ")
    for good in ("a", "team-7", "7a", "x" * 63):
        validate({**HEAD, "metadata": {"name": "a", "namespace": good}}, "run.yaml")


def test_an_untyped_field_is_as_deep_as_what_reads_it_back() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(ConfigError, match=r"podTemplatePatch: .* at most 50 levels of nesting"):
        validate({**HEAD, "spec": {"podTemplatePatch": deep}}, "run.yaml")
    validate({**HEAD, "spec": {"podTemplatePatch": {"a": 2**63 - 1, "b": -1e100}}}, "run.yaml")


def test_a_wrong_field_hides_no_contradiction_elsewhere() -> None:
    lines = lines_of(
        {
            "seed": -1,
            "model": {"numHeads": 7, "deepstackVisualIndexes": [50]},
            "data": {"imageSize": 225, "flip": "often"},
            "optimizer": {"betas": [0.9, 1.5]},
        }
    )
    fields = [line.split(": ")[1].removeprefix("spec.training.") for line in lines]
    assert sorted(fields) == [
        "data.flip",
        "data.imageSize",
        "model.deepstackVisualIndexes",
        "model.numHeads",
        "optimizer.betas",
        "seed",
    ]


def test_a_field_measured_against_a_wrong_one_is_not_blamed() -> None:
    # 6 heads fit tiny's width of 192; what they must fit is not known while embedDim is wrong.
    lines = lines_of({"preset": "tiny", "model": {"embedDim": "192", "numHeads": 7}})
    assert [line.split(": ")[1] for line in lines] == ["spec.training.model.embedDim"]


@pytest.mark.parametrize(
    ("top", "line"),
    [
        ({"kind": "Pod"}, 'run.yaml: kind: "Pod" is not allowed; allowed: ArlowPretrain'),
        (
            {"apiVersion": "v1"},
            'run.yaml: apiVersion: "v1" is not allowed; allowed: arlow.dev/v1alpha1',
        ),
        ({"metadata": None}, "run.yaml: metadata: is required and missing"),
        ({"metadata": {}}, "run.yaml: metadata.name: is required and missing"),
        ({"metadata": {"name": None}}, "run.yaml: metadata.name: is required and missing"),
        ({"metadata": []}, "run.yaml: metadata: [] is not allowed; allowed: a section of fields"),
        ({"spec": 5}, "run.yaml: spec: 5 is not allowed; allowed: a section of fields"),
        ({"specs": {}}, "run.yaml: specs: unknown field (value {}); did you mean spec?"),
    ],
)
def test_mistakes_at_the_top(top: dict[str, object], line: str) -> None:
    assert lines_of({}, **top) == [line]


@pytest.mark.parametrize("name", ["Upper", "-dash", "dash-", "a b", "", "x" * 53, 7, "7b"])
def test_a_run_has_a_kubernetes_name(name: object) -> None:
    [line] = lines_of({}, metadata={"name": name})
    assert line.startswith("run.yaml: metadata.name: ")
    assert "at most 52 characters" in line


@pytest.mark.parametrize("value", [True, "48", 48.0, 48.5, [48], {}, 2**63])
def test_a_whole_number_is_written_as_one(value: object) -> None:
    [line] = lines_of({"model": {"depth": value}})
    assert "allowed: a whole number, at least 1" in line
    assert len(line) < 200


def test_a_key_too_long_to_print_is_shortened() -> None:
    """Nor is it compared with the fields that may have been meant, which took seconds."""
    [line] = lines_of({"k" * 200_000: 1})
    assert len(line) < 500
    assert "kkk…" in line
    assert "unknown field" in line


def test_a_number_too_long_to_print_is_reported() -> None:
    assert "this int is not allowed" in lines_of({"model": {"depth": 10**5000}})[0]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), True, "1e-4", 0, -1.0])
def test_a_learning_rate_is_a_finite_positive_number(value: object) -> None:
    [line] = lines_of({"optimizer": {"learningRate": value}})
    assert line.endswith("allowed: a number, above 0 and at most 1,000,000,000")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(training=anything, spec=anything)
def test_no_document_ends_in_a_traceback(training: object, spec: object) -> None:
    for document in ({**HEAD, "spec": {"training": training}}, {**HEAD, "spec": spec}):
        try:
            validate(document, "run.yaml")
        except ConfigError as error:
            for line in str(error).splitlines():
                assert line.startswith("run.yaml: ")


@given(document=anything)
def test_no_file_ends_in_a_traceback(document: object, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("runs") / "run.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_run(str(path))


def test_what_kubernetes_does_not_know_is_refused() -> None:
    lines = lines_of({}, metadata={"name": "a", "nmae": "b", "label": {}, "labels": {"a": 1}})
    assert sorted(line.split("; ")[-1] for line in lines) == [
        "allowed: text",
        "did you mean labels?",
        "did you mean name?",
    ]


def test_what_kubectl_adds_is_accepted() -> None:
    document = {
        **HEAD,
        "metadata": {
            "name": "mistaken",
            "namespace": "default",
            "uid": "0b0e",
            "generation": 3,
            "labels": {"team": "vision"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "creationTimestamp": "2026-11-25T10:00:00Z",
            "resourceVersion": "123",
            "finalizers": ["arlow.dev/x"],
            "ownerReferences": [{"kind": "Job", "name": "a"}],
            "selfLink": None,
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {},
        "status": {"phase": "Running", "conditions": []},
    }
    run = validate(document, "run.yaml")
    assert run.metadata.name == "mistaken"
    assert run.status == {"phase": "Running", "conditions": []}


def test_a_missing_file_names_the_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*arlow-vision-3072, tiny"):
        load_run(str(tmp_path / "none.yaml"))


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(str(tmp_path))


@pytest.mark.parametrize(
    ("field", "url"),
    [
        ("data.images.path", "http://user:SECRET@host/images"),
        ("data.videos.path", "https://host/videos?X-Amz-Signature=SECRET"),
        ("probe.data.path", "s3://KEY:SEC/RET@bucket/labelled"),
        ("checkpoint.url", "s3://KEY:SECRET@bucket/runs"),
        ("checkpoint.url", "az://container/runs?sig=SECRET"),
        ("checkpoint.url", "ftp://user:SECRET@host/runs"),
        ("checkpoint.options.endpoint", "http://user:SECRET@host"),
        ("checkpoint.options.endpoint", "https://host/?token=SECRET"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(field: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run("tiny", [f"{field}={url}"])
    assert "without credentials" in str(caught.value)
    assert "in the environment" in str(caught.value)
    assert field in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "SEC/RET" not in str(caught.value)


def test_no_other_mistake_repeats_credentials() -> None:
    for value in ("[http://user:SECRET@host]", "{a: 'http://user:SECRET@host'}"):
        with pytest.raises(ConfigError) as caught:
            load_run("tiny", [f"data.images.path={value}", f"data.images.more={value}"])
        assert "SECRET" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_run("tiny", ["data.images.path={http://user:SECRET@host"])
    assert "SECRET" not in str(caught.value)
