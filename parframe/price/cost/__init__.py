"""Times of kernels, attention, experts and collectives on a device and its links."""
