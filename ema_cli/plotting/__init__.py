"""Pictures of what was smoothed; what draws them is an extra, imported where it is asked for."""
