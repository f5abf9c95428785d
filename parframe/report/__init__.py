"""Facts about models and plans, as plain data for JSON and as tables.

In each module, functions that end in ``_facts`` return dicts and lists; functions that begin with
``draw_`` make tables of them.
"""
