"""An application's settings."""

DEBUG = False
FLAGS = {"new": False}
