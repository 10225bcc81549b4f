"""Runs in a Kubernetes cluster, as their users see them: by kubectl's own configuration and rights.

Needs the extra `cluster`, and neither torch nor anything of a training run.
"""
