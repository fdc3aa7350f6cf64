"""Make a model ready for other programs and machines."""
