"""From frames to targets: models, predictions, what is written, and their scores."""
