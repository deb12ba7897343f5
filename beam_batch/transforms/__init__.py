"""The Beam shells: one transform a file, each over pure functions of the folders below."""
