"""What commands tell about models and plans: facts for JSON, and the same facts as tables.

Every room has functions that gather facts (plain dicts and lists) and functions that draw them.
"""
