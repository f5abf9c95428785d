"""The module of one device: its program as an fx graph, its cache, its process groups."""
