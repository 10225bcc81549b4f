"""The part of a manifest that says how a store is reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from arlow_trainer.config.mismatch import refuse
from arlow_trainer.config.section import Section, credentials_mismatch


class StoreOptions(Section):
    """How a store is reached, where the usual environment variables do not say so."""

    endpoint: Annotated[str, Field(pattern=r"^https?://", max_length=1024)] | None = None
    """URL of the store's server (s3://, gs://), or of the storage account (az://)."""
    anonymous: bool = False
    """Send no credentials."""
    requester_pays: bool = False
    """Pay for what is read from a bucket whose owner does not (s3://, gs://)."""
    profile: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Profile of the AWS configuration files (s3://)."""
    path_style: bool = False
    """Put the bucket into the path of requests, not into the server's name (s3://)."""

    @model_validator(mode="after")
    def _holds_no_credentials(self) -> StoreOptions:
        refuse(credentials_mismatch("endpoint", self.endpoint or ""))
        return self
