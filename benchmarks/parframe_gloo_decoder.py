"""Decoder of parframe without shared memory: all messages go over gloo."""

from __future__ import annotations

import parframe.runtime.shared_memory_collectives as direct
from benchmarks.decode_worker import WorkerConfig, serve
from benchmarks.parframe_decoder import ParframeDecoder


class ParframeGlooDecoder(ParframeDecoder):
    """Decoder whose ranks communicate as if they were on several nodes."""

    def __init__(self, config: WorkerConfig) -> None:
        direct.create_segment = lambda *_: None
        super().__init__(config)


if __name__ == "__main__":
    serve(ParframeGlooDecoder)
