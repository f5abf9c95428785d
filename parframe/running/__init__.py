"""Running plans on tensors: all devices in one process, and the proof of a plan."""

from parframe.running.outputs import Outputs
from parframe.running.simulate import simulate
from parframe.running.traffic import Traffic
from parframe.running.verify import Compared, Difference, Proof, verify

__all__ = ["Compared", "Difference", "Outputs", "Proof", "Traffic", "simulate", "verify"]
