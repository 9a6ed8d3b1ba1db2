"""The engines: one package each, of equal shape."""
