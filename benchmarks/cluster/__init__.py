"""The operator in a test cluster, beside its peers: `python -m benchmarks.cluster`."""
