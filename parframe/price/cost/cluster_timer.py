"""Timers of kernels and communication on one cluster, for given dtypes."""

from __future__ import annotations

from functools import lru_cache

import attrs

from parframe.hardware import Cluster
from parframe.price.cost.communication_times import communication_timer
from parframe.price.cost.dtypes import Dtypes
from parframe.price.cost.estimate import merge_notes
from parframe.price.cost.kernel_times import kernel_timer
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Communication, Kernel


@attrs.frozen(eq=False)
class ClusterTimer:
    """Timers of a cluster, by fitted times of single kernels and collectives.

    Parameters
    ----------
    cluster
        Cluster of devices.
    dtypes
        Dtypes of weights, cache and arithmetic.
    implementation
        Implementation of collectives: see `parframe.price.cost.communication_times`.
    excluded_device
        Device whose own measurements are not used, to test the prediction of an unknown device.
    busy_devices
        Number of devices that compute at once; None for all.
    """

    cluster: Cluster
    dtypes: Dtypes
    implementation: str = "nccl"
    excluded_device: str | None = None
    busy_devices: float | None = None
    timers: dict[Kernel | Communication, Timer] = attrs.field(factory=dict, init=False, repr=False)

    def among(self, busy: float) -> ClusterTimer:
        """Return the timers for the case that ``busy`` of the cluster's devices compute at once."""
        if self.cluster.machine.alone is None or busy >= self.cluster.devices:
            return self
        return _among(self, busy)

    def kernel(self, kernel: Kernel) -> Timer:
        """Return the timer of all ``count`` of a kernel."""
        if kernel not in self.timers:
            self.timers[kernel] = self._kernel(kernel)
        return self.timers[kernel]

    def communication(self, communication: Communication) -> Timer:
        """Return the timer of all ``count`` operators of a communication."""
        if communication not in self.timers:
            width = self.dtypes.plain_bytes
            found = communication_timer(communication, self.cluster, self.implementation, width)
            self.timers[communication] = found
        return self.timers[communication]

    def _kernel(self, kernel: Kernel) -> Timer:
        machine = self.cluster.machine
        every = kernel_timer(kernel, machine.device, self.dtypes, without=self.excluded_device)
        if self.busy_devices is None or machine.alone is None:
            return every
        one = kernel_timer(kernel, machine.alone, self.dtypes, without=self.excluded_device)
        # What devices share is divided among those that compute, and none exceeds its own.
        share = self.busy_devices / self.cluster.devices
        seconds = lambda step: max(one.seconds(step), share * every.seconds(step))  # noqa: E731
        return Timer(seconds, max(one.log_std, every.log_std), merge_notes(one.notes, every.notes))


@lru_cache(maxsize=4096)  # times are kept by a clock: it must be the same for the same question
def _among(clock: ClusterTimer, busy: float) -> ClusterTimer:
    return attrs.evolve(clock, busy_devices=busy)
