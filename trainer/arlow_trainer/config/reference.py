"""Writes docs/configuration.md from the schema: `python -m arlow_trainer.config.reference FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arlow_trainer.config.allowed import describe_allowed, resolve, run_schema
from arlow_trainer.config.ending import CONTRACT, DEFAULT_PATH, NODE_VARIABLE, PATH_VARIABLE
from arlow_trainer.config.errors import ExitCode
from arlow_trainer.config.load import load_run
from arlow_trainer.config.models import API_VERSION, KIND

# The schema's sections, in the order of a manifest; those that are alike share one table.
SECTIONS = (
    "metadata",
    "spec",
    "spec.training",
    "spec.training.model",
    "spec.training.mae",
    "spec.training.data",
    "spec.training.data.images",
    "spec.training.batch",
    "spec.training.optimizer",
    "spec.training.probe",
    "spec.training.probe.data",
    "spec.checkpoint",
    "spec.checkpoint.secretRef",
    "spec.checkpoint.options",
    "spec.nodes",
    "spec.nodes.tolerations",
    "spec.env",
    "spec.env.valueFrom",
    "spec.env.valueFrom.secretKeyRef",
    "spec.env.valueFrom.fieldRef",
    "spec.env.valueFrom.resourceFieldRef",
    "spec.dataVolumes",
    "spec.cacheVolume",
    "spec.failurePolicy",
    "spec.failurePolicy.maxRestarts",
    "spec.failurePolicy.stall",
)
VIDEOS = "spec.training.data.videos"
# Fields that share a table.
ALIKE = (
    ("spec.training.data.images", VIDEOS),
    ("spec.checkpoint.options", "spec.training.data.images.options", f"{VIDEOS}.options"),
    ("spec.checkpoint.secretRef", "spec.imagePullSecrets"),
    ("spec.env.valueFrom.secretKeyRef", "spec.env.valueFrom.configMapKeyRef"),
)

INTRODUCTION = f"""\
# Configuration

<!-- Written by `make docs` from arlow_trainer/config; edit the docstrings there. -->

A run is described by one `{KIND}` manifest, the file that `arlow train` reads. Fields that it
omits have the defaults below; an empty `spec.training` is the full `arlow-vision-3072` run.

```yaml
# yaml-language-server: $schema=arlow.schema.json  (written by `arlow config schema`)
apiVersion: {API_VERSION}
kind: {KIND}
metadata:
  name: my-tower
spec:
  training:
    preset: tiny            # the set of defaults
    data:
      images: {{path: ./photographs}}
      videoProbability: 0   # images only
  checkpoint:
    url: s3://my-bucket/runs   # this run is stored at s3://my-bucket/runs/my-tower/
```

A field that is null, or has nothing after its colon, is absent: it has its default. `kubectl apply`
drops such fields before it sends a manifest, so they can mean nothing else. To have none of
something, set the value that the table gives for it, such as `picturesEverySteps: 0`.

`arlow config show FILE` prints a run with every field, `arlow config validate FILE` reports all its
mistakes at once, `arlow config schema` prints the JSON schema for editors.

## Overriding single fields: `--set`

`--set path=value` overrides one field of a file or preset. It may be repeated; of several values
for one field, the last is used. The path starts at `spec.training` (`mae.maskRatio`), at
`spec` (`failurePolicy.stall.factor`), or at the top (`metadata.name`); the value is YAML.

```
arlow train tiny --set data.images.path=./photographs --set data.videoProbability=0
arlow train run.yaml --set metadata.name=second-try --set data.images='{{path: ./x, split: val}}'
```

## Credentials

A URL with credentials in it (`http://user:password@host`, `?X-Amz-Signature=...`) is refused: model
cards, checkpoints, reports and logs repeat URLs. Credentials are read from the environment, in a
cluster from a Secret's keys:

* `s3://`: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`
* `gs://`: `GOOGLE_APPLICATION_CREDENTIALS`
* `az://`: `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`
* `http://`, `https://`: `FSSPEC_HTTP={{"headers": {{"Authorization": "Basic ..."}}}}`
* Hugging Face data sets: `HF_TOKEN`

Credentials that end during a run are read again before anything fails: from the files that
`AWS_SHARED_CREDENTIALS_FILE`, `AWS_WEB_IDENTITY_TOKEN_FILE`, `GOOGLE_APPLICATION_CREDENTIALS` or
`AZURE_FEDERATED_TOKEN_FILE` name, and from the machine's or pod's identity. The variables of a
running process never change, so keys that end belong in a file, such as a mounted Secret. What
cannot be renewed ends the run with 77 and the words "session credentials expired", and its
checkpoints are kept.
"""

TERMINATION_MESSAGE = f"""\
### Termination message

`arlow train` also writes how it ended as one JSON line of less than 3 KiB to the file that
`{PATH_VARIABLE}` names, or to `{DEFAULT_PATH}` where that exists, as in a pod.
It is emptied when an attempt begins, and stays so where the process is killed.
Readers ignore keys that they do not know.

* `contract`: {CONTRACT}: the number of this format; it changes when a key changes its meaning
* `exitCode`, `cause`: the code and its cause, from the table above
* `message`: what happened, where, and what to do
* `remedy`: what to do about this cause in general
* `rank`: the rank that failed first; `null` where no single rank did
* `node`: where: `{NODE_VARIABLE}`, or the host name
* `step`: steps that were done; `null` where training had not begun
* `saved`: step of the newest checkpoint in the run's URL; `null` where none is known to be there
* `finished`: whether the last step is done and saved

A process that is killed itself (SIGKILL) writes none.
"""


def reference_page() -> str:
    """Returns docs/configuration.md."""
    parts = [INTRODUCTION, "## Fields\n", *map(_section, SECTIONS), _exit_codes()]
    return "\n".join(parts)


def json_schema() -> str:
    """Returns the JSON schema of a manifest, for editors and other tools."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **run_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _section(path: str) -> str:
    schema = _schema_at(path)
    defaults, tiny = (_values_at(preset, path) for preset in ("arlow-vision-3072", "tiny"))
    lines = [f"### {_title(path)}", ""]
    lines += [_one_line(schema["description"]), ""]
    lines += ["| field | type | default | `tiny` | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in schema["properties"].items():
        default, for_tiny = defaults.get(name), tiny.get(name)
        required = name in schema.get("required", ())
        cells = [
            f"`{name}`",
            _cell(describe_allowed(field)),
            "required" if required else _value(default),
            _value(for_tiny)
            if not required and for_tiny != default and not _is_section(field)
            else "",
            _cell(_one_line(field.get("description") or resolve(field).get("description", ""))),
        ]
        if _is_section(field):
            cells[2] = ("required, " if required else "") + _link(f"{path}.{name}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _exit_codes() -> str:
    rows = (
        f"| {int(code)} | `{code.cause}` | {_cell(code.meaning)} | {_cell(code.remedy)} |"
        for code in sorted(ExitCode)
    )
    return "\n".join(
        [
            "## Exit codes",
            "",
            "Codes of 64 and above are those of sysexits.h.",
            "",
            "| code | cause | meaning | what to do |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            TERMINATION_MESSAGE,
        ]
    )


def _schema_at(path: str) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = run_schema()
    for part in path.split("."):
        schema = resolve(schema["properties"][part])
    return schema


def _values_at(preset: str, path: str) -> dict[str, Any]:
    """Returns a preset's values of a section; where the section is unset, its fields' defaults."""
    values = load_run(preset).model_dump(mode="json", by_alias=True)
    for part in path.split("."):
        values = values[part] if isinstance(values, dict) else None
    if not values:
        fields = _schema_at(path)["properties"].items()
        return {name: field.get("default") for name, field in fields}
    return values


def _is_section(field: Mapping[str, Any]) -> bool:
    return "properties" in resolve(field)


def _title(path: str) -> str:
    alike = next((group for group in ALIKE if path in group), (path,))
    *first, last = (f"`{each}`" for each in alike)
    return f"{', '.join(first)} and {last}" if first else last


def _link(path: str) -> str:
    anchor = "".join(c for c in _title(path).lower() if c not in "`.,").replace(" ", "-")
    default = " (`path: ucf101`)" if path == VIDEOS else ""
    return f"[below](#{anchor}){default}"


def _value(value: object) -> str:
    return "" if value is None else f"`{json.dumps(value)}`".replace('"', "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    for page in sys.argv[1:]:
        Path(page).write_text(reference_page(), "utf-8")
        print(f"wrote {page}")
