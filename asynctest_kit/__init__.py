"""Run a whole asyncio integration-test suite at once, isolated and timed.

PYTEST_DONT_REWRITE: ``atk`` imports this package before pytest starts, and holds no asserts that pytest should rewrite.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
