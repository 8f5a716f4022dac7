"""Readers of a run's events: the console, JSON, and a file of the events themselves. None is read by the engine."""
