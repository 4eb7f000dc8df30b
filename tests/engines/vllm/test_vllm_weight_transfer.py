"""vLLM's own weight transfer, both ends in this process; only NCCL and CUDA calls are replaced.

What it shows: names, types, shapes and order of the calls, that sender and engine work at the same
time, and that the engine has the new weights. Not NCCL itself: that needs GPUs.
"""

from queue import Queue
from types import SimpleNamespace

import pytest
import torch

from prefix_rft_rllib.engines import EngineBrokenError, GenerationRequest, build_engine
from prefix_rft_rllib.engines.vllm.weight_sender import Meeting, open_sender
from tests.engines.models import EOS
from tests.engines.vllm.vllm_models import (
    OPTIONS,
    TOLERANCE,
    logp_errors,
    random_prompts,
    require_vllm,
    vllm_config,
    vllm_model,
)

pytestmark = pytest.mark.integration
WAIT_S = 30


class QueueGroup:
    """A communicator of two: what one broadcasts waits until the other takes it."""

    def __init__(self):
        self.queue, self.is_closed = Queue(), False

    def end(self, rank):
        def broadcast(tensor, src, stream):
            assert src == 0
            if rank == 0:
                self.queue.put(tensor.detach().clone())
                self.queue.join()  # as with NCCL, the sender needs the receiver
            else:
                tensor.copy_(self.queue.get(timeout=WAIT_S))
                self.queue.task_done()

        return SimpleNamespace(
            broadcast=broadcast, destroy=lambda: setattr(self, "is_closed", True)
        )


class Source:
    """A model's state dict."""

    def __init__(self, model):
        self.model = model

    def metadata(self):
        return [
            SimpleNamespace(name=name, dtype=value.dtype, shape=tuple(value.shape))
            for name, value in self.model.state_dict().items()
        ]

    def __iter__(self):
        return iter(self.model.state_dict().items())


class Client:
    """Calls the engine of this process, and notes what it called."""

    def __init__(self, receiver):
        self.receiver, self.calls, self.version = receiver, [], 0

    def init_weight_transfer_engine(self, init_info):
        self.calls.append(("connect", init_info))
        self.receiver.connect("the only one", init_info)

    def start_weight_update(self):
        self.calls.append(("start",))
        self.receiver.start()

    def update_weights(self, update_info):
        self.calls.append(("receive", update_info))
        self.receiver.receive(update_info)

    def finish_weight_update(self, weight_version=None):
        self.calls.append(("finish",))
        self.receiver.finish(self.version)


@pytest.fixture(scope="module")
def group():
    return QueueGroup()


@pytest.fixture(scope="module")
def without_gpus(group):
    """Replace what needs a GPU in vLLM's transfer."""
    require_vllm()
    from vllm.distributed.weight_transfer import nccl_engine

    patch = pytest.MonkeyPatch()
    patch.setattr(nccl_engine, "worker_init_process_group", lambda *args: group.end(1))
    patch.setattr(nccl_engine, "open_trainer_endpoint", lambda *args: group.end(0))
    patch.setattr(torch.cuda, "current_stream", lambda *args: None)
    patch.setattr(torch.accelerator, "synchronize", lambda *args: None)
    yield
    patch.undo()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def transfer(request, without_gpus):
    """An engine, a sender and what is between them."""
    is_tied = request.param
    engine = build_engine(
        "vllm", vllm_config(tied=is_tied), eos_token_ids=[EOS], weight_transfer="nccl", **OPTIONS
    )
    receiver = engine.weight_receiver
    assert receiver.connection is None
    source = Source(vllm_model(tied=is_tied, seed=0))
    client = Client(receiver)
    shapes = {meta.name: list(meta.shape) for meta in source.metadata()}
    assert receiver.check(shapes) == 1
    meeting = Meeting(rank=0, address="127.0.0.1", port=1234, num_workers=1)
    sender = open_sender("nccl", meeting, client, source)
    yield SimpleNamespace(
        engine=engine, receiver=receiver, client=client, sender=sender, source=source, tied=is_tied
    )
    engine.close()


def requests_of(*lengths: int) -> list[GenerationRequest]:
    prompts = random_prompts(*lengths)
    return [GenerationRequest(p, 12, temperature=0.8, seed=i) for i, p in enumerate(prompts)]


def send(transfer, version: int) -> None:
    transfer.client.version = version
    transfer.client.calls.clear()
    transfer.sender.send_weights()


# First: the engine of the fixture `transfer` lives until the end of the module.
def test_weights_inside_one_gpu(without_gpus, monkeypatch):
    from vllm.distributed.weight_transfer import ipc_engine

    # A "handle" is the tensor itself; the seventh argument is the device.
    monkeypatch.setattr(ipc_engine, "reduce_tensor", lambda t: (None, (t, *range(6))))
    monkeypatch.setattr(ipc_engine, "rebuild_cuda_tensor", lambda *args: args[0])
    properties = SimpleNamespace(uuid="GPU-1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *args: properties)
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: None)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    engine = build_engine(
        "vllm", vllm_config(), eos_token_ids=[EOS], weight_transfer="ipc", **OPTIONS
    )
    client, source = Client(engine.weight_receiver), Source(vllm_model(seed=0))
    sender = open_sender("ipc", Meeting(0, "", 0, 1), client, source)
    assert client.calls == [("connect", {"packed": False})]
    requests = requests_of(70, 9)
    for version in (1, 2):
        source.model = vllm_model(seed=version)
        client.version = version
        sender.send_weights()
        assert engine.weights_version == version
        generations = engine.generate(requests)
        assert logp_errors(source.model, requests, generations).max() < TOLERANCE
    assert [call[0] for call in client.calls[1:]] == ["start", "receive", "finish"] * 2
    engine.close()


def test_the_engine_is_told_where_to_meet(transfer):
    (call,) = [call for call in transfer.client.calls if call[0] == "connect"]
    expected = {"master_address": "127.0.0.1", "master_port": 1234, "rank_offset": 1}
    assert call[1] | {"world_size": 2, "packed": False} | expected == call[1]
    assert transfer.receiver.connection == "the only one"


def test_each_transfer_brings_the_newest_weights(transfer):
    # Prompts longer than a block: kept keys and values of old weights would show.
    requests = requests_of(70, 9, 40)
    for version, seed in ((3, 0), (4, 1), (5, 2)):
        model = vllm_model(tied=transfer.tied, seed=seed)
        transfer.source.model = model
        send(transfer, version)
        assert [call[0] for call in transfer.client.calls] == ["start", "receive", "finish"]
        assert transfer.engine.weights_version == version
        assert logp_errors(model, requests, transfer.engine.generate(requests)).max() < TOLERANCE


def test_names_types_and_shapes_are_those_of_the_state_dict(transfer):
    send(transfer, 6)
    update = transfer.client.calls[1][1]
    state = transfer.source.model.state_dict()
    assert update["names"] == list(state)
    assert ("lm_head.weight" in update["names"]) and len(update["names"]) == len(state)
    assert set(update["dtype_names"]) == {"float32"}
    assert update["shapes"] == [list(value.shape) for value in state.values()]


def test_weights_through_load_weights_still_work(transfer):
    model, requests = vllm_model(tied=transfer.tied, seed=3), requests_of(70)
    transfer.engine.load_weights(model.state_dict(), version=7)
    assert logp_errors(model, requests, transfer.engine.generate(requests)).max() < TOLERANCE
    send(transfer, 8)
    generations = transfer.engine.generate(requests)
    assert logp_errors(transfer.source.model, requests, generations).max() < TOLERANCE


def test_wrong_names_and_shapes_are_refused_before_anything_is_sent(transfer):
    shapes = {meta.name: list(meta.shape) for meta in transfer.source.metadata()}
    norm = shapes.pop("model.norm.weight")
    with pytest.raises(ValueError, match=r"missing: model\.norm\.weight"):
        transfer.receiver.check(shapes)
    with pytest.raises(ValueError, match="unexpected: other"):
        transfer.receiver.check(shapes | {"model.norm.weight": norm, "other": [1]})
    with pytest.raises(ValueError, match=r"wrong shape: model\.norm\.weight is \(3,\)"):
        transfer.receiver.check(shapes | {"model.norm.weight": [3]})


def test_a_new_connection_ends_the_old_one(transfer, group):
    init_info = {"master_address": "h", "master_port": 1, "rank_offset": 1, "world_size": 2}
    group.is_closed = False
    transfer.receiver.connect("another", init_info)
    assert group.is_closed
    assert transfer.receiver.connection == "another"
    send(transfer, 9)
    assert transfer.engine.weights_version == 9


def test_a_transfer_that_fails_breaks_the_engine(transfer, monkeypatch):
    monkeypatch.setattr(transfer.engine, "_broken", None)
    transfer.receiver.start()
    with pytest.raises(EngineBrokenError, match="Build a new engine"):
        transfer.receiver.receive({"names": ["x"], "dtype_names": [], "shapes": []})
    with pytest.raises(EngineBrokenError, match="broken"):
        transfer.engine.generate(requests_of(5))


def test_an_engine_without_the_option_takes_weights_by_load_weights_only():
    from prefix_rft_rllib.engines.vllm.options import VLLMEngineOptions

    require_vllm()
    with pytest.raises(ValueError, match=r"`weight_transfer_config`.*weight_transfer="):
        VLLMEngineOptions.from_config({"weight_transfer_config": {"backend": "nccl"}})
    options = VLLMEngineOptions.from_config({"weight_transfer": "ipc"})
    assert options.arguments_for(is_cpu=True)["weight_transfer_config"] == {"backend": "ipc"}


def test_other_engines_have_no_receiver():
    engine = build_engine("transformers", vllm_config(), eos_token_ids=[EOS])
    with pytest.raises(NotImplementedError, match="`load_weights` only"):
        _ = engine.weight_receiver
