"""Settings as pydantic models: the one definition of every setting. Imports no torch."""
