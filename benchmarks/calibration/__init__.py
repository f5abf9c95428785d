"""Calibration of prices: fits constants to tables of measurements and validates predictions."""
