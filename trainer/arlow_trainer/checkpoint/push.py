"""An export as a repository of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from arlow_trainer.config.errors import ConfigError, CredentialsError, StoreError
from arlow_trainer.storage.failures import classify


def push(folder: Path, repository: str) -> str:
    """Uploads an exported folder as `OWNER/NAME`, made if it is not there; returns its address.

    Raises ConfigError for what is no name of a repository, CredentialsError where the hub refuses
    the token or there is none, StoreError where it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export")
    except HFValidationError as error:
        raise ConfigError(f"--push {repository}: {error}; write it as OWNER/NAME") from None
    except OfflineModeIsEnabled:
        raise StoreError(
            f"--push {repository}: HF_HUB_OFFLINE is set, so that the hub cannot be reached; unset "
            "it"
        ) from None
    except LocalTokenNotFoundError as error:
        raise CredentialsError(
            f"--push {repository}: there is no token; run `hf auth login` or set HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise CredentialsError(
                f"--push {repository}: the hub refuses this token ({status}); run `hf auth login` "
                "or set HF_TOKEN to one that may write there"
            ) from error
        raise StoreError(f"--push {repository}: the hub answers {status}; try again") from error
    except Exception as error:
        if not classify(error, local=False).transient:
            raise
        raise StoreError(
            f"--push {repository}: the hub cannot be reached: {error}; check the network or a proxy"
        ) from error
    return f"https://huggingface.co/{repository}"
