"""What computes probabilities: a module for each runtime, behind one base class."""
