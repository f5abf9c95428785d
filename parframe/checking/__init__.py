"""Checks of a plan without a device: a plan in, what is wrong with it out."""
