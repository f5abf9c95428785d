"""Times of kernels and communication on devices and links."""
