"""The service: one HTTP process without a model, and worker processes with one each."""
