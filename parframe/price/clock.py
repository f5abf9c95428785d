"""Kernels' and exchanges' times on one cluster, with weights and cache in given dtypes."""

from __future__ import annotations

import attrs

from parframe.hardware import Cluster
from parframe.price.dtypes import Dtypes
from parframe.price.exchanges import exchange_timer
from parframe.price.kernels import kernel_timer
from parframe.price.timer import Timer
from parframe.price.work import Exchange, Kernel


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
        Whose exchanges: see `parframe.price.exchanges`.
    without
        A device whose own measurements are left out, to see how well an unknown one is predicted.
    """

    cluster: Cluster
    dtypes: Dtypes
    implementation: str = "nccl"
    without: str | None = None
    timers: dict[Kernel | Exchange, Timer] = attrs.field(factory=dict, init=False, repr=False)

    def kernel(self, kernel: Kernel) -> Timer:
        """Return what times all ``count`` of a kernel."""
        if kernel not in self.timers:
            device = self.cluster.machine.device
            self.timers[kernel] = kernel_timer(kernel, device, self.dtypes, without=self.without)
        return self.timers[kernel]

    def exchange(self, exchange: Exchange) -> Timer:
        """Return what times all ``count`` of an exchange."""
        if exchange not in self.timers:
            self.timers[exchange] = exchange_timer(exchange, self.cluster, self.implementation)
        return self.timers[exchange]
