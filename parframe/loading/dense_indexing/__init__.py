"""Boolean-mask indexing, exported as computation on all rows and a mask."""
