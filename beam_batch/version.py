"""The version of this package, as `setup.py` says it."""

VERSION = "0.1.0"
