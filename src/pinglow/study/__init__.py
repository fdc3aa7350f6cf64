"""Studies: a grid of recipes and seeds, run one after another, and what it shows."""
