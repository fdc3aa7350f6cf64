"""Views for training, cut by tensor functions that are the same on any device."""
