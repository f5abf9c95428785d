"""Running plans on tensors: all devices in one process, and the proof of a plan."""

from parframe.run.outputs import Outputs
from parframe.run.simulate import simulate
from parframe.run.traffic import Traffic
from parframe.run.verify import Compared, Difference, Proof, verify

__all__ = ["Compared", "Difference", "Outputs", "Proof", "Traffic", "simulate", "verify"]
