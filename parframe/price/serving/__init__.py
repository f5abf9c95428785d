"""Serving engines: their memory, the time of a step, and their steady state under a load."""
