"""Kernels' and exchanges' times on one cluster, with weights and cache in given dtypes."""

from __future__ import annotations

import attrs

from parframe.hardware import Cluster
from parframe.price.dtypes import SIXTEEN, Dtypes
from parframe.price.estimate import Estimate
from parframe.price.exchanges import exchange_time
from parframe.price.kernels import Timer, timer
from parframe.price.work import Exchange, Kernel, Step


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
    timers: dict[Kernel, Timer] = attrs.field(factory=dict, init=False, repr=False)

    def kernel(self, kernel: Kernel, step: Step) -> Estimate:
        """Return the seconds of all ``count`` of a kernel."""
        time = self.timers.get(kernel)
        if time is None:
            device = self.cluster.machine.device
            time = timer(kernel, device, self.dtypes, without=self.without)
            self.timers[kernel] = time
        return time(step)

    def exchange(self, exchange: Exchange, step: Step) -> Estimate:
        """Return the seconds of all ``count`` of an exchange."""
        times = step.rows * step.new if exchange.per == "token" else step.rows
        message = exchange.elements * times * exchange.share * SIXTEEN
        one = exchange_time(exchange, message, self.cluster, self.implementation)
        return one * exchange.count
