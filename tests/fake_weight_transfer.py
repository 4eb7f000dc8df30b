"""A direct transfer of weights without vLLM and GPUs, over a key-value store of torch.

Like NCCL's, sender and receivers wait for each other: the sender sends when all receivers have
begun to receive, and goes on when all have what it sent.
"""

import datetime
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.distributed import TCPStore

from prefix_rft_rllib.engines import EngineBrokenError
from prefix_rft_rllib.engines.engine import WeightReceiver
from prefix_rft_rllib.engines.state_dict_checks import check_shapes
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner

WAIT = datetime.timedelta(seconds=60)


def to_bytes(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


class FakeReceiver(WeightReceiver):
    """The end of a `RunnerEngine` whose engine is the transformers engine."""

    def __init__(self, runner_engine):
        self.runner_engine = runner_engine
        self.name, self.store, self.init_info = None, None, {}
        self.steps: list[str] = []
        self.is_broken = False

    @property
    def connection(self):
        return self.name

    def check(self, shapes):
        self.steps.append("check")
        model = self.runner_engine._built()._open_model()
        check_shapes(model, {name: tuple(shape) for name, shape in shapes.items()})
        return 1

    def connect(self, connection, init_info):
        self.steps.append("connect")
        self.name, self.init_info, self.num_updates = connection, init_info, 0
        self.store = TCPStore("127.0.0.1", init_info["port"], timeout=WAIT)
        self.store.add("connected", 1)

    def start(self):
        self.steps.append("start")
        self._check_connected()
        self.received = None

    def receive(self, update_info):
        self.steps.append("receive")
        self._check_connected()
        if self.is_broken:
            raise EngineBrokenError("out of order")
        self.num_updates += 1
        self.store.add(f"receiving_{self.num_updates}", 1)
        read = [self.store.get(f"{self.num_updates}_{n}") for n in update_info["names"]]
        tensors = [torch.load(io.BytesIO(data)) for data in read]
        self.received = dict(zip(update_info["names"], tensors, strict=True))
        self.store.add(f"received_{self.num_updates}", 1)

    def _check_connected(self):
        if self.name is None:  # a runner that was started again meanwhile
            raise EngineBrokenError("not connected")

    def finish(self, version):
        self.steps.append("finish")
        self._check_connected()
        self.runner_engine._built().load_weights(self.received, version)


class ReceivingEnvRunner(TokenEnvRunner):
    """An env runner whose engine has a receiver."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._engine._receiver = FakeReceiver(self._engine)


class FakeSender:
    """vLLM's sender, in short."""

    def __init__(self, backend, meeting, client, source):
        self.client, self.source, self.meeting = client, source, meeting
        self.num_updates, self.is_closed = 0, False
        self.store = TCPStore(
            "127.0.0.1", meeting.port, is_master=True, wait_for_workers=False, timeout=WAIT
        )
        init_info = {"port": meeting.port, "rank_offset": 1}
        self._beside(client.init_weight_transfer_engine, init_info, lambda: self._wait("connected"))

    def send_weights(self):
        assert not self.is_closed
        self.num_updates += 1
        names = [meta.name for meta in self.source.metadata()]
        self.client.start_weight_update()
        self._beside(self.client.update_weights, {"names": names}, self._send)
        self.client.finish_weight_update()

    def shutdown(self):
        self.is_closed = True

    def _send(self):
        self._wait(f"receiving_{self.num_updates}")
        for meta, (name, tensor) in zip(self.source.metadata(), self.source, strict=True):
            assert (meta.name, meta.shape, meta.dtype) == (name, tensor.shape, tensor.dtype)
            self.store.set(f"{self.num_updates}_{name}", to_bytes(tensor))
        self._wait(f"received_{self.num_updates}")

    def _beside(self, call, argument, function):
        """A call to the engines, and meanwhile a function."""
        with ThreadPoolExecutor(1) as executor:
            self.future = executor.submit(call, argument)
            function()
            self.future.result()

    def _wait(self, key):
        """Wait for all receivers, or for the error of one."""
        stop = threading.Event()
        while self.store.add(key, 0) < self.meeting.num_workers:
            if self.future.done():
                self.future.result()
            stop.wait(0.01)


def pid_and_steps(runner) -> tuple[int, list[str], int]:
    """Process, and what the receiver did since the last question."""
    receiver = runner._engine._receiver
    steps, receiver.steps = receiver.steps, []
    return os.getpid(), steps, receiver.init_info.get("rank_offset", 0)
