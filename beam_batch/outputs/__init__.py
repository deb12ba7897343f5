"""What a run leaves on disk: the work directory, part files, the final files and the summary."""
