"""Running plans on tensors: all devices in one process, and the proof of a plan."""

from parframe.simulation.outputs import Outputs
from parframe.simulation.simulate import simulate
from parframe.simulation.traffic import Traffic
from parframe.simulation.verify import Compared, Difference, Proof, verify

__all__ = ["Compared", "Difference", "Outputs", "Proof", "Traffic", "simulate", "verify"]
