"""Work of many composites without their plans: equal layers once, one device of each stage."""
