"""Choice of a composite: candidates, ranking by an objective under limits, and bottlenecks."""
