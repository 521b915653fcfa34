"""Averages of model parameters: in the training loop (`parameters`) and over checkpoints (`fold`)."""
