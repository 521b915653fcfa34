"""What needs a package that the core does without: one file each, imported where it is asked for."""
