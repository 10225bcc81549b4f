"""A run's life: launching its ranks, the training loop, signals, the lease, reporting."""
