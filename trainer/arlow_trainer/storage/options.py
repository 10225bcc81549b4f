"""What fsspec's file systems call a manifest's options of a store, and the store of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arlow_trainer.config.errors import ConfigError
from arlow_trainer.config.models import ArlowPretrain
from arlow_trainer.config.store_options import StoreOptions
from arlow_trainer.config.training import SourceSection
from arlow_trainer.storage.connection import connect
from arlow_trainer.storage.json_text import parse_json
from arlow_trainer.storage.store import Store

# Hands a run's options to `arlow probe`, which the run starts.
STORE_OPTIONS_VARIABLE = "ARLOW_STORE_OPTIONS"

_ALLOWED = "`arlow train` sets it for the probes that it starts: leave it unset"


@dataclass(frozen=True)
class Access:
    """How URLs are reached: those of `scheme` with `options`, others as the environment says."""

    scheme: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def connect(self, url: str) -> tuple[Any, str]:
        """Returns the file system of a URL or local path, and the path in it, as `connect` does."""
        return connect(url, **self.of(url))

    def of(self, url: str) -> dict[str, Any]:
        """Returns the options of a URL's file system."""
        scheme, separator, _ = url.partition("://")
        return dict(self.options) if separator and scheme == self.scheme else {}


AS_THE_ENVIRONMENT_SAYS = Access()


def access_by(options: StoreOptions | None, url: str) -> Access:
    """Returns how URLs are reached where a section with these options has the URL `url`."""
    return Access(url.partition("://")[0], _of_file_system(options, url))


def access_to(section: SourceSection) -> Access:
    """Returns how the files of a set are reached."""
    return access_by(section.options, section.path)


def store_of(run: ArlowPretrain) -> Store:
    """Returns the store at a run's URL, reached as its options say."""
    return store_for(run, run.run_url)


def store_for(run: ArlowPretrain, url: str) -> Store:
    """Returns the store at a URL, the run's own or beside it, reached as the run's options say.

    They are for stores of their URL's scheme; another is reached as the environment says.
    """
    own = run.spec.checkpoint
    return Store(url, access_by(own.options, own.url).of(url))


def _of_file_system(section: StoreOptions | None, url: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if section is None:
        return options
    scheme = url.partition("://")[0]
    if section.endpoint and scheme in ("az", "abfs"):
        options["account_host"] = section.endpoint.partition("://")[2].rstrip("/")
    elif section.endpoint:
        options["endpoint_url"] = section.endpoint
    if section.anonymous and scheme in ("gs", "gcs"):
        options["token"] = "anon"
    elif section.anonymous:
        options["anon"] = True
    if section.requester_pays:
        options["requester_pays"] = True
    if section.profile is not None:
        options["profile"] = section.profile
    if section.path_style:
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
