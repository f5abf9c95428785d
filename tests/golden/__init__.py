"""Outputs that were recorded once, and that a change of names or structure must not change.

`facts` holds what commands print as JSON, `plans.json` digests of plans, `modules` the code of rank
modules. `renames.toml` maps names of today to those in these files. `make golden` writes all anew.
"""
