"""Files, pipes and signals: what every format and command stands on."""
