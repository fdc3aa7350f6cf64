"""From a model, or saved maps, to a report."""
