"""Work of a plan: what one step asks of every device, as plain data."""
