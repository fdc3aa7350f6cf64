"""Model files: cards, weights, and how a name becomes a network."""
