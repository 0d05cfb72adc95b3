"""Models that make a vector of a clip's frames."""
