"""The choice of a composite: candidates, their ranking, and the reasons for it."""
