"""A package that adds a network, a loss and a reader to pinglow, as anybody's may."""
