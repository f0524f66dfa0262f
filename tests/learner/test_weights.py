"""Broadcast of weights to a real engine, and the faults that the proof detects."""

from pathlib import Path

import numpy as np
import pytest
import torch
from actor_cases import Served, change, completions, load_model, reference_logprobs, save_model

from actors.config import SamplingConfig
from actors.errors import EngineDied, StaleWorkersError
from buffer.rollout_records import ProbeAnswer
from learner.broadcast.broadcaster import Broadcaster
from learner.broadcast.policy_source import PolicySource
from learner.broadcast.proof import BroadcastProofError, compare, probe_positions
from learner.broadcast.shared_memory import SharedMemorySender
from learner.broadcast.weight_stream import WeightStream
from learner.config import LoraConfig
from learner.errors import LearnerError, WaitTimeoutError
from learner.models.adapters import weights, with_adapter

PROBE = np.random.default_rng(3).integers(0, 272, 80).astype(np.int32)
POSITIONS = probe_positions(len(PROBE), parameters=10**9)
TEMPERATURE = 0.7


class OneEngine:
    """A rollout service and sync client for one engine of this process, without Ray."""

    stale_error = StaleWorkersError
    died_error = EngineDied
    names = ("engine",)
    incarnations = ("engine.0",)
    ranks = 1
    timeout_s = 60.0
    version = 0
    elsewhere = ()

    def __init__(self, served):
        self.served = served

    def sync_client(self):
        return self

    def init_weight_transfer_engine(self, init_info):
        self.served.run(self.served.engine.init_weight_transfer_engine(init_info))

    def fetch_weights(self, offer, engines):
        self.served.run(self.served.engine.fetch_weights(offer, self.timeout_s))

    def install_weights(self, updates):
        self.start_weight_update()
        for update in updates:
            self.update_weights(update)
        self.finish_weight_update()

    def stage_weights(self, updates):
        staging = self.served.submit(self.served.engine.stage_weights(updates))
        return lambda: staging.result(60)

    def start_weight_update(self):
        self.served.run(self.served.engine.start_weight_update())

    def update_weights(self, update_info):
        self.served.run(self.served.engine.update_weights(update_info))

    def finish_weight_update(self, weight_version=None):
        self.served.run(self.served.engine.finish_weight_update(self.version))

    def probe(self, tokens, positions):
        logprobs = self.served.run(self.served.engine.probe(tokens, TEMPERATURE, positions))
        return [ProbeAnswer("engine", self.served.engine.version, logprobs)]


class Busy(OneEngine):
    """A client with requests in flight while the engine loads weights, which have generated tokens when it pauses."""

    def __init__(self, served, prompt):
        super().__init__(served)
        self.prompt = prompt

    def stage_weights(self, updates):
        def ask(n, max_tokens):
            sampling = SamplingConfig(temperature=TEMPERATURE, max_tokens=max_tokens)
            return self.served.submit(self.served.engine.generate(self.prompt, n, sampling))

        self.running = ask(32, 250)
        # The engine steps all requests together, so the earlier ones have generated at least as many tokens.
        self.short = ask(32, 2)
        return super().stage_weights(updates)

    def start_weight_update(self):
        try:
            self.short.result(60)
        except TimeoutError:
            raise TimeoutError("the engine did not write two tokens within 60 s") from None
        super().start_weight_update()


class Counting(OneEngine):
    """A client that records the bytes of each update."""

    def __init__(self, served):
        super().__init__(served)
        self.sent = []

    def update_weights(self, update_info):
        self.sent.append(update_info["size"])
        super().update_weights(update_info)


class Elsewhere(OneEngine):
    """A client whose engine is on another host."""

    elsewhere = OneEngine.incarnations

    def __init__(self, served):
        super().__init__(served)
        self.offers = []

    def fetch_weights(self, offer, engines):
        assert engines == self.elsewhere
        self.offers.append(offer)
        super().fetch_weights(offer, engines)

    def update_weights(self, update_info):
        # The engine shares this host, and must not read the learner's own memory.
        assert self.served.engine._streamed.located(update_info)["path"] != update_info["path"]
        super().update_weights(update_info)


def change_adapter(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights(model):
            for parameter in weight.adapter.values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _broadcaster(model, rollouts, backend="auto"):
    def logprobs(tokens):
        return reference_logprobs(model, tokens, TEMPERATURE)

    return Broadcaster(PolicySource(model), rollouts, backend, 0, 60.0, logprobs, PROBE, POSITIONS, 1e-3)


# The two that differ most: an output head of its own and rotary positions, a tied head and learned positions.
@pytest.fixture(scope="module", params=["llama-untied", "gpt2-tied"])
def engine(request, tmp_path_factory):
    """Return an engine with a faulty receiver, and the folder of the model that it started from."""
    folder = save_model(
        tmp_path_factory.mktemp(request.param),
        request.param.partition("-")[0],
        tied=request.param.endswith("-tied"),
    )
    with pytest.MonkeyPatch.context() as patch:
        # The engine's process imports the faulty receiver by its name.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
        served = Served(folder, extension="weights_cases.Forgetful")
    yield served, folder
    served.close()


@pytest.mark.engine
def test_several_broadcasts_arrive_and_are_proved(engine):
    served, folder = engine
    model = load_model(folder)
    broadcaster = _broadcaster(model, OneEngine(served))
    for version in range(1, 4):
        change(model, version)
        assert broadcaster.broadcast(version) < 1e-3
        (completion,) = served.generate([70, 80], 1, SamplingConfig(temperature=TEMPERATURE, max_tokens=16))
        assert set(completion.versions) == {version}
        expected = reference_logprobs(model, [70, 80, *completion.token_ids], TEMPERATURE)[1:]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-3)


@pytest.mark.engine
def test_weights_are_loaded_while_requests_go_on_and_in_the_pause_where_a_model_cannot_stage(engine):
    served, folder = engine
    model = load_model(folder)
    rollouts = Counting(served)
    broadcaster = _broadcaster(model, rollouts)
    for version, in_pause in ((5, False), (6, True), (7, False)):
        served.rpc("load_in_pause", in_pause)
        change(model, version)
        assert broadcaster.broadcast(version) < 1e-3
        assert served.rpc("staged") == [not in_pause]


@pytest.mark.engine
def test_requests_in_flight_continue_with_tokens_of_both_versions(engine):
    served, folder = engine
    old, new = load_model(folder), load_model(folder)
    change(old, 10)
    change(new, 11)
    _broadcaster(old, OneEngine(served)).broadcast(10)
    prompt = [70, 80, 90]
    busy = Busy(served, prompt)
    _broadcaster(new, busy).broadcast(11)
    both = [c for c in completions(busy.running.result(120)) if set(c.versions) == {10, 11}]
    assert both, "no request was in flight during the broadcast"
    for completion in both:
        assert completion.versions == sorted(completion.versions)
        # Each token has the log-probability of the version that it is labelled with.
        versions, tokens = np.array(completion.versions), prompt + completion.token_ids
        for version, model in ((10, old), (11, new)):
            expected = reference_logprobs(model, tokens, TEMPERATURE)[len(prompt) - 1 :]
            mine = versions == version
            np.testing.assert_allclose(np.array(completion.logprobs)[mine], expected[mine], atol=1e-3)


@pytest.mark.engine
def test_the_base_is_sent_once_and_then_only_adapters(engine):
    served, folder = engine
    base = load_model(folder)
    change(base, 40)  # the engine started from other weights, as in a run with a clone
    model = with_adapter(base, LoraConfig(rank=4))
    rollouts = Counting(served)
    broadcaster = _broadcaster(model, rollouts)
    whole = sum(t.numel() * t.element_size() for _, t in PolicySource(model))
    answers = {}
    for version, seed in ((15, 1), (16, 2), (17, 1)):
        change_adapter(model, seed)
        assert broadcaster.broadcast(version) < 1e-3
        answers[version] = rollouts.probe(PROBE, POSITIONS)[0].logprobs
        (completion,) = served.generate([70, 80], 1, SamplingConfig(temperature=TEMPERATURE, max_tokens=16))
        expected = reference_logprobs(model, [70, 80, *completion.token_ids], TEMPERATURE)[1:]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-3)
    # The base was sent once, and each adapter is less than a third of its size.
    assert rollouts.sent[0] >= whole
    assert max(rollouts.sent[1:]) < whole / 3
    assert len(rollouts.sent) == 4
    # Each adapter is merged into the base itself, so the same adapter gives exactly the same weights.
    assert np.array_equal(answers[17], answers[15])
    assert np.abs(answers[16] - answers[15]).max() > 0.1
    # A later broadcast of whole weights replaces the base too.
    change(base, 41)
    assert _broadcaster(base, OneEngine(served)).broadcast(18) < 1e-3


@pytest.mark.engine
def test_an_engine_on_another_host_gets_whole_weights_and_adapters_as_a_stream(engine, monkeypatch):
    served, folder = engine
    monkeypatch.setattr("learner.broadcast.weight_stream.listening_address", lambda: "127.0.0.1")
    base = load_model(folder)
    change(base, 42)
    rollouts = Elsewhere(served)
    whole = _broadcaster(base, rollouts)
    assert whole.broadcast(18) < 1e-3
    size = sum(rollouts.offers[0].sizes.values())
    change(base, 43)
    assert whole.broadcast(19) < 1e-3
    whole.close()
    model = with_adapter(base, LoraConfig(rank=4))
    adapted = _broadcaster(model, rollouts)
    for version, seed in ((20, 1), (21, 2)):
        change_adapter(model, seed)
        assert adapted.broadcast(version) < 1e-3
    adapted.close()
    # The base and the first adapter, then the second one alone.
    assert [len(offer.sizes) for offer in rollouts.offers] == [1, 1, 2, 1]
    assert sum(rollouts.offers[3].sizes.values()) < size / 3


@pytest.mark.engine
def test_the_proof_detects_a_stale_output_head(engine, request):
    served, folder = engine
    if "untied" in request.node.name:
        pytest.skip("an untied head receives weights of its own")
    model = load_model(folder)
    broadcaster = _broadcaster(model, OneEngine(served))
    served.rpc("forget_heads", True)
    change(model, 20)
    with pytest.raises(BroadcastProofError, match=r"engine .*version 20: largest gap .*output head"):
        broadcaster.broadcast(20)
    served.rpc("forget_heads", False)
    assert broadcaster.broadcast(21) < 1e-3


@pytest.mark.engine
def test_the_proof_detects_an_update_without_effect(engine):
    served, folder = engine
    model = load_model(folder)
    broadcaster = _broadcaster(model, OneEngine(served))
    broadcaster.broadcast(30)
    served.rpc("forget_all", True)
    change(model, 31)
    with pytest.raises(BroadcastProofError, match="weights of the version before"):
        broadcaster.broadcast(31)
    served.rpc("forget_all", False)
    assert broadcaster.broadcast(32) < 1e-3


# Without an engine


def _answer(logprobs, version=4):
    return ProbeAnswer("worker-1", version, np.asarray(logprobs, np.float32))


def test_the_proof_names_engine_gap_tolerance_and_cause():
    expected = np.array([-1.0, -2.0, -3.0], np.float32)

    def check(answer, **kwargs):
        answers, positions = [_answer(expected), answer], np.array([1, 33, 47])
        return compare(expected, answers, positions=positions, version=4, tolerance=1e-3, **kwargs)

    assert check(_answer(expected + 5e-4)) == pytest.approx(5e-4, rel=1e-3)
    with pytest.raises(BroadcastProofError, match=r"worker-1 answers as policy version 3, but version 4"):
        check(_answer(expected, version=3))
    with pytest.raises(BroadcastProofError, match=r"worker-1 .*gap .*0\.02, tolerance 0\.001.*precision"):
        check(_answer(expected + 0.02))
    with pytest.raises(BroadcastProofError, match="prefix cache"):
        check(_answer([-1.0, -2.0, -4.0]))
    with pytest.raises(BroadcastProofError, match="output head"):
        check(_answer(expected - 2.0))
    with pytest.raises(BroadcastProofError, match="version before"):
        check(_answer([-2.0, -1.0, -5.0]), previous=np.array([-2.0, -1.0, -5.0]))
    with pytest.raises(BroadcastProofError, match="NaN"):
        check(_answer([-1.0, np.nan, -3.0]))


@pytest.mark.parametrize(("architecture", "tied"), [("llama", False), ("llama", True), ("gpt2", True)])
def test_the_source_gives_checkpoint_names_and_each_weight_once(tmp_path, architecture, tied):
    folder = save_model(tmp_path, architecture, tied=tied)
    model = load_model(folder)
    source = PolicySource(model)
    sent = dict(source)
    assert list(sent) == [meta.name for meta in source.metadata()]
    assert all(tuple(sent[m.name].shape) == m.shape and sent[m.name].dtype == m.dtype for m in source.metadata())
    whole = model.state_dict()
    assert set(sent) == set(whole) - ({"lm_head.weight"} if tied else set())
    assert all(torch.equal(sent[name], whole[name]) for name in sent)
    half = PolicySource(model, wire_dtype=torch.bfloat16)
    assert {tensor.dtype for _, tensor in half} == {m.dtype for m in half.metadata()} == {torch.bfloat16}


class Recorder(OneEngine):
    """A client whose engines die in the first `deaths` broadcasts, and that records what it receives."""

    def __init__(self, deaths=0):
        self.deaths = deaths
        self.asked = 0
        self.memory = None

    def sync_client(self):
        self.asked += 1
        return self

    def init_weight_transfer_engine(self, init_info):
        pass

    def stage_weights(self, updates):
        return lambda: None

    def start_weight_update(self):
        if 0 < self.asked <= self.deaths:
            raise EngineDied("no engine is left to take weights (worker-0: its process ended)")

    def update_weights(self, update_info):
        self.info = update_info
        self.memory = Path(update_info["path"]).read_bytes()

    def finish_weight_update(self, weight_version=None):
        pass

    def probe(self, tokens, positions):
        return [ProbeAnswer("engine", self.version, np.zeros(len(positions), np.float32))]


def _zeros(tokens):
    return np.zeros(len(tokens) - 1, np.float32)


def test_a_broadcast_is_repeated_when_all_engines_died_and_fails_after_four_attempts(tmp_path):
    model = load_model(save_model(tmp_path))

    def broadcast(rollouts):
        return Broadcaster(PolicySource(model), rollouts, "auto", 0, 60.0, _zeros, PROBE, POSITIONS, 1e-3).broadcast(1)

    rollouts = Recorder(deaths=2)
    assert broadcast(rollouts) == 0.0
    assert rollouts.asked == 3
    with pytest.raises(WaitTimeoutError, match=r"version 1, 4 times.*worker-0: its process ended"):
        broadcast(Recorder(deaths=99))


class TwoEngines(Recorder):
    """A client of two engines, one on another host, whose fetch fails the first time; records what is sent."""

    def __init__(self):
        super().__init__()
        self.failures = 1
        self.fetched, self.sent = [], []

    def sync_client(self):
        self.incarnations, self.elsewhere = ["near.0", "far.0"], ["far.0"]
        return self

    def fetch_weights(self, offer, engines):
        self.fetched.append(len(offer.sizes))
        if self.failures:
            self.failures -= 1
            self.incarnations.remove("far.0")

    def update_weights(self, update_info):
        self.sent.append(len(self.incarnations))


def test_an_engine_that_the_stream_did_not_reach_gets_the_base_with_the_next_broadcast(tmp_path, monkeypatch):
    monkeypatch.setattr("learner.broadcast.weight_stream.listening_address", lambda: "127.0.0.1")
    model = with_adapter(load_model(save_model(tmp_path)), LoraConfig(rank=4))
    client = TwoEngines()
    broadcaster = Broadcaster(PolicySource(model), client, "auto", 0, 60.0, _zeros, PROBE, POSITIONS, 1e-3)
    for version in (1, 2, 3):
        assert broadcaster.broadcast(version) == 0.0
    broadcaster.close()
    # Base and adapter go to the near engine, then to both, and then the adapter alone.
    assert client.fetched == [2, 2, 1]
    assert client.sent == [1, 1, 2, 2, 2]


def test_shm_refuses_engines_of_other_hosts_and_without_these_nothing_listens(tmp_path, monkeypatch):
    model = load_model(save_model(tmp_path))
    with pytest.raises(LearnerError, match=r"backend` is shm, .* far\.0 run on other hosts"):
        Broadcaster(PolicySource(model), TwoEngines(), "shm", 0, 60.0, _zeros, PROBE, POSITIONS, 1e-3).broadcast(1)
    monkeypatch.setattr("learner.broadcast.weight_stream.MemoryServer", None)
    assert (
        Broadcaster(PolicySource(model), Recorder(), "auto", 0, 60.0, _zeros, PROBE, POSITIONS, 1e-3).broadcast(1)
        == 0.0
    )


def test_shared_memory_holds_the_weights_and_is_freed_by_shutdown(tmp_path):
    model = load_model(save_model(tmp_path))
    client = Recorder()
    source = PolicySource(model, wire_dtype=torch.bfloat16)
    sender = SharedMemorySender(client, source, WeightStream())
    sender.send_weights()
    info = client.info
    for name, shape, offset in zip(info["names"], info["shapes"], info["offsets"], strict=True):
        count = torch.Size(shape).numel()
        got = torch.frombuffer(bytearray(client.memory), dtype=torch.bfloat16, count=count, offset=offset).view(shape)
        assert torch.equal(got, model.state_dict()[name].bfloat16())
    sender.shutdown()
    assert not Path(info["path"]).exists()
