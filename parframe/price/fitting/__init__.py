"""Fitting what is data in prices to tables of measured times; needs scipy, the prices do not."""
