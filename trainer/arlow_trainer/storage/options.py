"""The store of a run, and what fsspec's file systems call the options of its section."""

from __future__ import annotations

import os
from typing import Any

from arlow_trainer.config.errors import ConfigError
from arlow_trainer.config.models import ArlowPretrain, CheckpointSection
from arlow_trainer.storage.json_text import parse_json
from arlow_trainer.storage.store import Store

# Hands a run's options to `arlow probe`, which the run starts.
STORE_OPTIONS_VARIABLE = "ARLOW_STORE_OPTIONS"

_ALLOWED = "`arlow train` sets it for the probes that it starts: leave it unset"


def store_of(run: ArlowPretrain) -> Store:
    """Returns the store at a run's URL, reached as its options say."""
    return Store(run.run_url, store_options(run.spec.checkpoint))


def store_for(run: ArlowPretrain, url: str) -> Store:
    """Returns the store at a URL beside the run's own, reached as its options say.

    They are for stores of their URL's scheme; another is reached as the environment says.
    """
    own = run.spec.checkpoint
    alike = "://" in url and url.partition("://")[0] == own.url.partition("://")[0]
    return Store(url, store_options(own) if alike else {})


def store_options(section: CheckpointSection) -> dict[str, Any]:
    """Returns the options of a section's store for its fsspec file system."""
    options: dict[str, Any] = {}
    if section.options is None:
        return options
    scheme, endpoint = section.url.partition("://")[0], section.options.endpoint
    if endpoint and scheme in ("az", "abfs"):
        options["account_host"] = endpoint.partition("://")[2].rstrip("/")
    elif endpoint:
        options["endpoint_url"] = endpoint
    if section.options.anonymous and scheme in ("gs", "gcs"):
        options["token"] = "anon"
    elif section.options.anonymous:
        options["anon"] = True
    if section.options.requester_pays:
        options["requester_pays"] = True
    if section.options.profile is not None:
        options["profile"] = section.options.profile
    if section.options.path_style:
        options["config_kwargs"] = {"s3": {"addressing_style": "path"}}
    return options


def inherited_options() -> dict[str, Any]:
    """Returns the options that the run which started this process has handed over.

    Raises ConfigError where the variable does not hold a JSON object.
    """
    try:
        options = parse_json(os.environ.get(STORE_OPTIONS_VARIABLE) or "{}")
    except ValueError as error:
        raise ConfigError(f"{STORE_OPTIONS_VARIABLE}: {error}; {_ALLOWED}") from None
    if not isinstance(options, dict):
        raise ConfigError(f"{STORE_OPTIONS_VARIABLE}: it is not a JSON object; {_ALLOWED}")
    return options
