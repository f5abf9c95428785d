"""Measuring the machine at hand, so that plans can be priced on it: `parframe measure`."""
