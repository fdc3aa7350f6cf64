"""Read frames and labels: one module a format."""
