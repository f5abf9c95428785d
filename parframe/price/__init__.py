"""Pricing: memory, time and choice of plans, without the devices that they are for."""
