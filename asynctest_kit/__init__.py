"""Run a whole asyncio integration-test suite at once, isolated and timed."""

__version__ = "0.1.0"

__all__ = ["__version__"]
