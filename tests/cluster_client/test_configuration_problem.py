"""What is said where kubectl's configuration cannot be read."""

from __future__ import annotations

from arlow_trainer.cluster.access import configuration_problem


def test_the_clients_full_stop_does_not_end_the_message() -> None:
    told = configuration_problem(Exception("Invalid kube-config file. No configuration found."))
    assert told == (
        "kubectl's configuration: Invalid kube-config file. No configuration found; set KUBECONFIG"
    )
