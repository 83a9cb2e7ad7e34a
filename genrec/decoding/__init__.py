"""From log-probabilities over token trees to a ranking of items."""
