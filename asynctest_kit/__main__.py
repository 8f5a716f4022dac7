"""``python -m asynctest_kit`` is ``atk``."""

from asynctest_kit.cli import main

main()
