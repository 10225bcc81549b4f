"""What runs get that do not say otherwise: laid under their manifests when their Jobs are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from arlow_operator.pod_patch import CONFIG_FOLDER, OWN_LABELS
from arlow_trainer.config import ConfigError
from arlow_trainer.config.cluster import (
    NOT_RESERVED,
    RESERVED_VARIABLES,
    Labels,
    Name,
    Reference,
    VariableName,
)
from arlow_trainer.config.mismatch import Mismatch, refuse
from arlow_trainer.config.section import Section

CA_BUNDLE = "ca.crt"
# Each of the libraries that speak to stores and to the hub asks for one of these: the hub's and
# Google's, Azure's, and S3's.
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


class RunDefaults(Section):
    """Defaults of all runs."""

    image_pull_policy: Annotated[str, Field(pattern="^(Always|IfNotPresent|Never)$")] | None = None
    """When kubelets pull the trainer's image; unset: Kubernetes' default."""
    image_pull_secrets: Annotated[tuple[Reference, ...], Field(strict=False, max_length=16)] = ()
    """Secrets for the registry, in the namespace of each run."""
    service_account_name: Name | None = None
    """Service account of the pods, in the namespace of each run."""
    store_endpoint: Annotated[str, Field(pattern=r"^https?://", max_length=1024)] | None = None
    """Endpoint of S3."""
    env: Annotated[dict[VariableName, str], Field(max_length=256)] = Field(default_factory=dict)
    """Environment variables; those of the run's Secret and of its manifest win."""
    ca_bundle: Annotated[str, Field(max_length=700_000)] | None = None
    """Certificates that are trusted, PEM."""
    labels: Labels = Field(default_factory=dict)
    """Labels of all that is made for a run."""
    do_not_disrupt: bool = True
    """Whether autoscalers are asked to leave the pods' nodes alone."""
    fixed_ids: bool = True
    """Whether the pods name their user and group; without, the namespace gives them ids."""

    @property
    def variables(self) -> dict[str, str]:
        """The environment, with the variables that the other defaults set."""
        found = (
            dict.fromkeys(CA_VARIABLES, f"{CONFIG_FOLDER}/{CA_BUNDLE}") if self.ca_bundle else {}
        )
        if self.store_endpoint:
            found["AWS_ENDPOINT_URL"] = self.store_endpoint
        return found | self.env

    @model_validator(mode="after")
    def _is_not_the_operators(self) -> RunDefaults:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        for name in self.env:
            if RESERVED_VARIABLES.fullmatch(name):
                yield Mismatch("env", name, NOT_RESERVED)
        for label in self.labels:
            if label.startswith(OWN_LABELS):
                yield Mismatch("labels", label, f"no label of {', '.join(OWN_LABELS)}")


def read_defaults(path: str) -> RunDefaults:
    """Returns the defaults that a YAML file holds. Raises ConfigError."""
    try:
        document = yaml.safe_load(Path(path).read_text("utf-8"))
        return RunDefaults.model_validate(document or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        mistakes = [
            ": ".join(filter(None, (path, ".".join(map(str, each["loc"])), each["msg"])))
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError("\n".join(mistakes).replace("Value error, ", "")) from None
