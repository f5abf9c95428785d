"""What a plan costs on devices that need not be here: memory, time, and which to choose."""
