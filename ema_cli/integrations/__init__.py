"""Callbacks for training frameworks, each imported where its framework is used."""
