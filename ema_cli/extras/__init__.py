"""What needs a package that the core does without, one thing a file, imported where it is asked for."""
