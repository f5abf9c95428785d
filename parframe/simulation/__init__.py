"""Execution of all devices of a plan in one process, and its verification."""

from parframe.simulation.outputs import Outputs
from parframe.simulation.proof import Difference, OutputComparison, Proof
from parframe.simulation.simulate import simulate
from parframe.simulation.traffic import Traffic
from parframe.simulation.verify import verify

__all__ = ["Difference", "OutputComparison", "Outputs", "Proof", "Traffic", "simulate", "verify"]
