"""Kernels' and exchanges' times on one cluster, with weights and cache in given dtypes."""

from __future__ import annotations

from functools import lru_cache

import attrs

from parframe.hardware import Cluster
from parframe.price.cost.communication_times import communication_timer
from parframe.price.cost.dtypes import Dtypes
from parframe.price.cost.estimate import joined
from parframe.price.cost.kernel_times import kernel_timer
from parframe.price.cost.timers import Timer
from parframe.price.work.work import Communication, Kernel


@attrs.frozen(eq=False)
class MeasuredClock:
    """Times by what was measured of single kernels and exchanges.

    Parameters
    ----------
    cluster
        The devices, and where they are.
    dtypes
        Of weights, cache and arithmetic.
    implementation
        Whose exchanges: see `parframe.price.cost.communication_times`.
    excluded_device
        A device whose own measurements are left out, to see how well an unknown one is predicted.
    busy_devices
        How many devices of a node compute at once; None for all of them.
    """

    cluster: Cluster
    dtypes: Dtypes
    implementation: str = "nccl"
    excluded_device: str | None = None
    busy_devices: float | None = None
    timers: dict[Kernel | Communication, Timer] = attrs.field(factory=dict, init=False, repr=False)

    def among(self, busy: float) -> MeasuredClock:
        """Return the clock of a time when so many of the cluster's devices compute at once."""
        if self.cluster.machine.alone is None or busy >= self.cluster.devices:
            return self
        return _among(self, busy)

    def kernel(self, kernel: Kernel) -> Timer:
        """Return what times all ``count`` of a kernel."""
        if kernel not in self.timers:
            self.timers[kernel] = self._kernel(kernel)
        return self.timers[kernel]

    def exchange(self, exchange: Communication) -> Timer:
        """Return what times all ``count`` of an exchange."""
        if exchange not in self.timers:
            width = self.dtypes.plain_bytes
            found = communication_timer(exchange, self.cluster, self.implementation, width)
            self.timers[exchange] = found
        return self.timers[exchange]

    def _kernel(self, kernel: Kernel) -> Timer:
        machine = self.cluster.machine
        every = kernel_timer(kernel, machine.device, self.dtypes, without=self.excluded_device)
        if self.busy_devices is None or machine.alone is None:
            return every
        one = kernel_timer(kernel, machine.alone, self.dtypes, without=self.excluded_device)
        # What devices share is divided among those that compute, and none exceeds its own.
        share = self.busy_devices / self.cluster.devices
        seconds = lambda step: max(one.seconds(step), share * every.seconds(step))  # noqa: E731
        return Timer(seconds, max(one.log_std, every.log_std), joined(one.notes, every.notes))


@lru_cache(maxsize=4096)  # times are kept by a clock: it must be the same for the same question
def _among(clock: MeasuredClock, busy: float) -> MeasuredClock:
    return attrs.evolve(clock, busy_devices=busy)
