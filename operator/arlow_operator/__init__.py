"""The operator: an `ArlowPretrain` object becomes a training run that looks after itself."""
