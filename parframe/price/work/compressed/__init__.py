"""Work of many composites without their plans, from shortened graphs and one device a stage."""
