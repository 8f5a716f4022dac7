"""A module that changes the environment when it is loaded."""

import os

os.environ["IMPORTED"] = "1"
