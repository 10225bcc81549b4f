"""The names that a run and what is made for it have in a cluster, for all who look for them."""

from __future__ import annotations

GROUP, VERSION, PLURAL = "arlow.dev", "v1alpha1", "arlowpretrains"

RUN_LABEL = "arlow.dev/run"
RUN_UID_LABEL = "arlow.dev/run-uid"
ATTEMPT_LABEL = "arlow.dev/attempt"
RETRY_ANNOTATION = "arlow.dev/retry"

STATUS_PORT = 9100
"""Port of a pod at which its trainer answers."""
