"""Measurement of this machine, so that plans can be priced on it: `parframe measure`."""
