"""Batch APIs of providers: request files, journal, submitting, polling, fetching. No Beam."""
