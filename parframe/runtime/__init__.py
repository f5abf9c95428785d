"""Execution of one rank: its program as an fx graph, its KV cache, its process groups."""
